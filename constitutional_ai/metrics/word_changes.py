"""Tell two versions of a text apart, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from rapidfuzz.distance import LCSseq

MOST_WORDS = 4000
"""Words of a text that are compared: the time and the memory of a comparison grow with the product of both lengths."""
SHORT = 2
"""Words between two changes that are shown as changed too: single common words between changes cannot be read."""

Change = Literal["same", "removed", "added"]


class Part(NamedTuple):
    """Neighbouring words that were kept, removed or added, as they are written."""

    change: Change
    text: str


class WordChanges(NamedTuple):
    """What became of a text."""

    parts: tuple[Part, ...]
    kept: int
    """Number of words, as in the next two fields."""
    removed: int
    added: int
    left_out: int
    """Words at the ends of both texts that were not compared."""


def word_changes(before: str, after: str) -> WordChanges:
    """Compare two texts by their words; only what lies between words may differ in parts that are the same.

    >>> [tuple(part) for part in word_changes("I will help you.", "I will not help you.").parts]
    [('same', 'I will '), ('added', 'not '), ('same', 'help you.')]
    """
    old, new = _words(before), _words(after)
    left_out = max(0, len(old) - MOST_WORDS) + max(0, len(new) - MOST_WORDS)
    old, new = old[:MOST_WORDS], new[:MOST_WORDS]
    parts: list[Part] = []
    counts = {"same": 0, "removed": 0, "added": 0}
    for change, words in _runs(old, new):
        counts[change] += len(words)
        parts.append(Part(change, "".join(words)))
    return WordChanges(tuple(parts), counts["same"], counts["removed"], counts["added"], left_out)


def _words(text: str) -> list[str]:
    """Return the words of a text, each with the space that follows it."""
    return re.findall(r"^\s*\S+\s*|\S+\s*", text) if text.strip() else []


def _runs(old: list[str], new: list[str]) -> Iterator[tuple[Change, list[str]]]:
    """Yield kept, removed and added words in the order in which they are read."""
    steps = LCSseq.opcodes([w.strip() for w in old], [w.strip() for w in new])
    gone: list[str] = []
    come: list[str] = []
    last = len(steps) - 1
    for number, step in enumerate(steps):
        was, now = old[step.src_start : step.src_end], new[step.dest_start : step.dest_end]
        between = 0 < number < last and len(now) <= SHORT
        if step.tag == "equal" and not between:
            yield from _changed(gone, come)
            gone, come = [], []
            yield "same", now
        else:
            gone += was
            come += now
    yield from _changed(gone, come)


def _changed(gone: list[str], come: list[str]) -> Iterator[tuple[Change, list[str]]]:
    if gone:
        yield "removed", gone
    if come:
        yield "added", come
