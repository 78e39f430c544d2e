"""Measure without a judge how different a model's answers are from each other: RL narrows a model (RL-7).

``distinct_2`` is the share of different pairs of neighbouring words among all pairs (Li et al. 2016). It falls with the
amount of text, so compare models on the same prompts. ``self_similarity`` compares answers to one prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations, pairwise

WORD = re.compile(r"\w+(?:['’]\w+)*")


def distinct_2(answers: Sequence[str]) -> float | None:
    """Return the share of different pairs of neighbouring words, in (0, 1]; None if there is no pair.

    >>> distinct_2(["Tea is hot.", "Tea is cold."])
    0.75
    """
    pairs = [pair for answer in answers for pair in pairwise(_words(answer))]
    return len(set(pairs)) / len(pairs) if pairs else None


def self_similarity(answers: Sequence[str]) -> float | None:
    """Return the mean similarity of pairs of answers to one prompt, in [0, 1]; None for fewer than two answers.

    The similarity of two answers is the share of their words and pairs of neighbouring words that occur in both: 1 for
    the same words in the same order.

    >>> self_similarity(["Tea, please.", "tea please", "Coffee!"])
    0.3333333333333333
    """
    if len(answers) < 2:
        return None
    phrases = [_phrases(answer) for answer in answers]
    similarities = [
        len(one & two) / len(one | two) if one | two else 1.0 for one, two in combinations(phrases, 2)
    ]
    return sum(similarities) / len(similarities)


def _phrases(answer: str) -> set[tuple[str, ...]]:
    words = _words(answer)
    return {*((word,) for word in words), *pairwise(words)}


def _words(answer: str) -> list[str]:
    return WORD.findall(answer.casefold())
