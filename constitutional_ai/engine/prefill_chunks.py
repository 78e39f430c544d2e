"""Sequences cut into prefill chunks of like length, and the sub-prefixes that only some of a batch share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

CHUNK_TOKENS = 2048
"""Tokens of a chunk, padding included: enough for the matrix products, and their results stay in the caches."""
LAST_CHUNK = 1.25
"""If the rest is at most so many chunks, prefill it in one go: small chunks are inefficient."""
MIN_SHARED = 16
"""Tokens from which copying another sequence's keys and values is worth it."""


class PrefillInput(NamedTuple):
    """What is prefilled of one sequence: a context, then its continuations one behind the other.

    No continuation attends to another.
    """

    tokens: list[int]
    positions: list[int]
    segments: list[int]
    """0 in the context, 1, 2, … in the continuations."""

    @staticmethod
    def of(context: list[int], prefix_len: int, continuations: Sequence[list[int]] = ()) -> PrefillInput:
        """Build the input that follows ``prefix_len`` known tokens.

        A continuation's last token is left out: it predicts nothing.
        """
        end = prefix_len + len(context)
        built = PrefillInput(list(context), list(range(prefix_len, end)), [0] * len(context))
        for number, tokens in enumerate(continuations, start=1):
            built.tokens.extend(tokens[:-1])
            built.positions.extend(range(end, end + len(tokens) - 1))
            built.segments.extend([number] * (len(tokens) - 1))
        return built


def chunks(lengths: dict[int, int]) -> Iterator[list[int]]:
    """Yield indices of sequences, longest first, in chunks of at most ``CHUNK_TOKENS`` where a sequence allows."""
    order = sorted(lengths, key=lambda i: -lengths[i])
    while order:
        longest = lengths[order[0]]
        count = len(order) if len(order) * longest <= LAST_CHUNK * CHUNK_TOKENS else CHUNK_TOKENS // longest
        yield order[: max(1, count)]
        order = order[max(1, count) :]


def shared_subprefixes(sequences: Sequence[list[int]], known: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return, for each sequence that shares tokens beyond its ``known`` ones, its leader and how many they share.

    A leader shares nothing itself: it is prefilled first. A sequence's last token is never shared, because its logits
    are wanted.

    >>> shared_subprefixes([[7] * 40 + [1], [7] * 40 + [2], [9] * 30], known=[0, 0, 0])
    {1: (0, 40)}
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    alike = [common_prefix(sequences[i], sequences[j]) for i, j in pairwise(order)]
    shared, leader = {}, order[0]
    for i, with_next in zip(order[1:], [*alike, 0][1:], strict=True):
        length = min(common_prefix(sequences[leader], sequences[i]), len(sequences[i]) - 1)
        if length - known[i] >= MIN_SHARED and with_next < length + MIN_SHARED:
            shared[i] = leader, length
        else:
            leader = i
    return shared


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of tokens that two sequences begin with in common."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # by halves: slices compare faster than a loop over tokens
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low
