"""Rows as an engine reads them: in pieces of like length, and what some share before the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

PIECE = 2048
"""Tokens read at once, padding included: enough for the matrix products, and their results stay in the caches."""
LAST = 1.25
"""Pieces, up to which the rest is read as one: few rows take long for what they are."""
WORTH = 16
"""Tokens from which a row takes over what another has read."""


class Read(NamedTuple):
    """Of one row what is read. Continuations lie one after another behind the context, and none sees another."""

    tokens: list[int]
    positions: list[int]
    segments: list[int]
    """0 of the context, 1, 2, … of the continuations."""

    @staticmethod
    def of(context: list[int], begun: int, continuations: Sequence[list[int]] = ()) -> Read:
        """After a beginning of ``begun`` tokens. A continuation's last token predicts nothing."""
        end = begun + len(context)
        read = Read(list(context), list(range(begun, end)), [0] * len(context))
        for number, tokens in enumerate(continuations, start=1):
            read.tokens.extend(tokens[:-1])
            read.positions.extend(range(end, end + len(tokens) - 1))
            read.segments.extend([number] * (len(tokens) - 1))
        return read


def pieces(lengths: dict[int, int]) -> Iterator[list[int]]:
    """Numbers of rows, longest first, in pieces that hold ``PIECE`` tokens at most where a row allows."""
    order = sorted(lengths, key=lambda i: -lengths[i])
    while order:
        longest = lengths[order[0]]
        count = len(order) if len(order) * longest <= LAST * PIECE else max(1, PIECE // longest)
        yield order[:count]
        order = order[count:]


def branches(rows: Sequence[list[int]], known: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Rows that go on like another one beyond the ``known`` tokens of theirs: which one, and up to which token.

    That other one is in no branch itself: it is read first. A row's last token is its own, as it is answered.

    >>> branches([[7] * 40 + [1], [7] * 40 + [2], [9] * 30], known=[0, 0, 0])
    {1: (0, 40)}
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    alike = [common(rows[i], rows[j]) for i, j in pairwise(order)]
    found, leader = {}, order[0]
    for i, with_next in zip(order[1:], [*alike, 0][1:], strict=True):
        length = min(common(rows[leader], rows[i]), len(rows[i]) - 1)
        if length - known[i] >= WORTH and with_next < length + WORTH:
            found[i] = leader, length
        else:
            leader = i
    return found


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two rows have in common at their beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # by halves: slices compare faster than a loop over tokens
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low
