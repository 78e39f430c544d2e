"""Prompt-lookup decoding: where rows copy, what comes next is read ahead, and kept if it is what the row then draws.

A revision says much of the answer again, and an answer much of its few-shots. A row's n-th draw is the same whether it
was read ahead or not, so what it says changes only by rounding, as with any other batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

AHEAD = 4
"""Tokens that are read ahead at most."""
ALIKE = 3
"""Tokens that must have stood there before."""
START, DECAY = 0.3, 0.9
"""Share of rows whose guess comes true, before any has, and what of it is left after a step without."""
GOES_ON = 0.8
"""How likely the next token is right too."""
HALF, MOST = 32, 0.6
"""What one token more costs each of R rows is R / (R + HALF) x MOST of a step of one token, measured on a CPU."""
WORTH = 1.1
"""Times as fast: for less, which may be an error of this reckoning, nothing is read ahead."""


class Row(Protocol):
    number: int
    tokens: list[int]


class Copying:
    """Of a batch whose rows all start with ``beginning``."""

    def __init__(self, beginning: Sequence[int] = ()) -> None:
        self._begun, self._beginning = len(beginning), dict[tuple[int, ...], int]()
        self._own: dict[int, tuple[dict[tuple[int, ...], int], int]] = {}
        self._share = START
        _index(beginning, ALIKE, self._beginning)

    def guess(self, row: Row) -> list[int]:
        """What came after the last ``ALIKE`` tokens where they stood before: at most ``AHEAD``, or nothing."""
        seen, known = self._own.get(row.number, ({}, self._begun))
        _index(row.tokens, known, seen)
        self._own[row.number] = seen, len(row.tokens)
        last = tuple(row.tokens[-ALIKE:])
        at = seen.get(last) or self._beginning.get(last)
        return row.tokens[at : at + AHEAD] if at else []

    def forget(self, row: Row) -> None:
        """It has ended."""
        self._own.pop(row.number, None)

    def heard(self, right: int, rows: int) -> None:
        """So many first tokens of guesses came true, whether they were read ahead or not."""
        self._share = DECAY * self._share + (1 - DECAY) * right / rows

    def width(self, rows: int) -> int:
        """How many tokens it pays to read ahead."""
        costs = rows / (rows + HALF) * MOST
        said, best, width = 1.0, WORTH, 0
        for ahead in range(1, AHEAD + 1):
            said += self._share * GOES_ON ** (ahead - 1)
            if said / (1 + ahead * costs) > best:
                best, width = said / (1 + ahead * costs), ahead
        return width


def _index(tokens: Sequence[int], begin: int, places: dict[tuple[int, ...], int]) -> None:
    """Where each few tokens were last followed by another, from the token number ``begin`` on."""
    for at in range(max(begin, ALIKE), len(tokens)):
        places[tuple(tokens[at - ALIKE : at])] = at
