"""How unlike each other are a model's answers? RL narrows a model (RL-7): the signs of it that need no judge.

``distinct_2`` is the share of different pairs of neighbouring words among all pairs (Li et al. 2016). It falls with the
amount of text, so compare models on the same prompts. ``self_similarity`` compares answers to one prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations, pairwise

WORD = re.compile(r"\w+(?:['’]\w+)*")


def distinct_2(answers: Sequence[str]) -> float | None:
    """In (0, 1]: 1 where no two words stand together twice; None where no two words stand together at all.

    >>> distinct_2(["Tea is hot.", "Tea is cold."])
    0.75
    """
    pairs = [pair for answer in answers for pair in pairwise(_words(answer))]
    return len(set(pairs)) / len(pairs) if pairs else None


def self_similarity(answers: Sequence[str]) -> float | None:
    """Mean over pairs of answers to one prompt, in [0, 1]: 1 for the same words in the same order. None for one answer.

    Of two answers, the share of their words and pairs of neighbouring words that both have.

    >>> self_similarity(["Tea, please.", "tea please", "Coffee!"])
    0.3333333333333333
    """
    if len(answers) < 2:
        return None
    phrases = [_phrases(answer) for answer in answers]
    found = [len(one & two) / len(one | two) if one | two else 1.0 for one, two in combinations(phrases, 2)]
    return sum(found) / len(found)


def _phrases(answer: str) -> set[tuple[str, ...]]:
    words = _words(answer)
    return {*((word,) for word in words), *pairwise(words)}


def _words(answer: str) -> list[str]:
    return WORD.findall(answer.casefold())
