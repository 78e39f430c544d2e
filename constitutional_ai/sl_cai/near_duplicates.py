"""Which texts say almost the same? Ours: the paper does not say whether generated prompts were sifted (SL-3).

A text is the set of its runs of four letters; two are near when they share ``NEAR`` of all that both have (Jaccard).
MinHash finds the few that may be near, so that a hundred thousand texts take minutes and 1 GB, and those are compared.
"""

from __future__ import annotations

import re
from typing import Any

LETTERS = 4
NEAR = 0.6
"""One or two words of a question are other ones; upper case and punctuation count for nothing."""
BANDS, ROWS = 30, 4
"""Misses 1 in 60 of those that share just 0.6, 1 in 4,000 at 0.7, and none that are the same."""
PERMUTATIONS = 1
"""Seed of the hashes: the same texts are near on every machine."""


class Seen:
    """Texts that were seen, each with a word that says where.

    >>> seen = Seen()
    >>> seen.add("How do I bake a loaf of bread?", "file")
    >>> seen.near("how do I bake a loaf of bread")
    'file'
    >>> seen.near("How do I boil an egg?")
    """

    def __init__(self) -> None:
        from datasketch import MinHash, MinHashLSH  # half a second

        self._index: Any = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._blank: Any = MinHash(num_perm=BANDS * ROWS, seed=PERMUTATIONS, scheme="affine32")
        self._texts: list[tuple[str, str]] = []

    def add(self, text: str, where: str) -> None:
        self._index.insert(len(self._texts), self._sketch(shingles(text)))
        self._texts.append((text, where))

    def near(self, text: str) -> str | None:
        """Where the first text that this one is near was seen; None when it is near none."""
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
    """Of the words alone, with one space between them. Never empty."""
    words = " ".join(WORD.findall(text.casefold()))
    return {words[at : at + LETTERS] for at in range(max(1, len(words) - LETTERS + 1))}


def likeness(a: set[str], b: set[str]) -> float:
    """Jaccard: 1 when they are the same, 0 when they share nothing."""
    return len(a & b) / len(a | b)


WORD = re.compile(r"[^\W_]+")
