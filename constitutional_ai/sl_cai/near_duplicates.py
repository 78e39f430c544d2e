"""Find near-duplicate texts. Ours: the paper does not say whether generated prompts were sifted (SL-3).

A text is represented by the set of its four-letter substrings. Two texts are near-duplicates if the Jaccard similarity
of their sets is at least ``NEAR``. MinHash finds the few candidates, which are then compared exactly. A hundred
thousand texts take minutes and 1 GB.
"""

from __future__ import annotations

import re
from typing import Any

LETTERS = 4
NEAR = 0.6
"""At 0.6 about one or two words of a question differ. Case and punctuation are ignored."""
BANDS, ROWS = 30, 4
"""MinHash misses 1 in 60 pairs of similarity 0.6, 1 in 4,000 of 0.7, and no identical texts."""
PERMUTATIONS = 1
"""Seed of the hashes, so that every machine finds the same texts."""


class Seen:
    """An index of texts, each with a label that says where it is from.

    >>> seen = Seen()
    >>> seen.add("How do I bake a loaf of bread?", "file")
    >>> seen.near("how do I bake a loaf of bread")
    'file'
    >>> seen.near("How do I boil an egg?")
    """

    def __init__(self) -> None:
        from datasketch import MinHash, MinHashLSH  # importing it takes half a second

        self._index: Any = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._blank: Any = MinHash(num_perm=BANDS * ROWS, seed=PERMUTATIONS, scheme="affine32")
        self._texts: list[tuple[str, str]] = []

    def add(self, text: str, where: str) -> None:
        self._index.insert(len(self._texts), self._sketch(shingles(text)))
        self._texts.append((text, where))

    def near(self, text: str) -> str | None:
        """Return the label of the first text that is near this one; None if there is none."""
        mine = shingles(text)
        candidates: list[int] = self._index.query(self._sketch(mine))
        for at in sorted(candidates):
            other, where = self._texts[at]
            if likeness(mine, shingles(other)) >= NEAR:
                return where
        return None

    def _sketch(self, parts: set[str]) -> Any:
        sketch = self._blank.copy()
        sketch.update_batch(part.encode() for part in parts)
        return sketch


def shingles(text: str) -> set[str]:
    """Return the four-letter substrings of a text's words, joined by single spaces. Never empty."""
    words = " ".join(WORD.findall(text.casefold()))
    return {words[at : at + LETTERS] for at in range(max(1, len(words) - LETTERS + 1))}


def likeness(a: set[str], b: set[str]) -> float:
    """Return the Jaccard similarity: 1 for equal sets, 0 for disjoint ones."""
    return len(a & b) / len(a | b)


WORD = re.compile(r"[^\W_]+")
