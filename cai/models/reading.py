"""Rows as an engine reads them: in pieces of like length, each token seeing what it should.

Axes: B rows of a piece, T their tokens, left-padded, L what they see of their own: what is known of it, and these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from cai.models.attention import Forward
from cai.models.batching import common

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


def mask_of(rows: list[Read], known: list[int], model: Forward) -> torch.Tensor:
    """Added to scores (B, 1, T, L). Of each row ``known`` tokens lie right before those that it reads.

    Padding sees itself, so that it holds numbers.
    """
    device, most = model.device, max(known)
    width = max(len(row.tokens) for row in rows)
    segments_BT = torch.tensor(
        [[-1] * (width - len(row.segments)) + row.segments for row in rows], device=device
    )
    asks_BT1, asked_B1T = segments_BT[:, :, None], segments_BT[:, None]
    seen_BTT = ((asked_B1T == 0) | (asked_B1T == asks_BT1)) & (asked_B1T >= 0)
    seen_BTT &= torch.ones((width, width), dtype=torch.bool, device=device).tril()
    seen_BTT |= torch.eye(width, dtype=torch.bool, device=device)
    before_B1 = most - torch.tensor(known, device=device)[:, None]
    before_BTK = (torch.arange(most, device=device) >= before_B1)[:, None].expand(-1, width, -1)
    return hidden(torch.cat([before_BTK, seen_BTT], dim=2), model)


def mask_behind(padding: list[int], count: int, width: int, model: Forward) -> torch.Tensor:
    """For the last ``count`` of ``width`` columns, of which a row's first are padding (B, 1, T, L)."""
    column_L = torch.arange(width, device=model.device)
    own_B1L = column_L >= torch.tensor(padding, device=model.device)[:, None, None]
    at_T1 = column_L[-count:, None]
    return hidden((own_B1L & (column_L <= at_T1)) | (column_L == at_T1), model)


def hidden(seen: torch.Tensor, model: Forward) -> torch.Tensor:
    zeros = torch.zeros(seen.shape, dtype=model.dtype, device=model.device)
    return zeros.masked_fill(~seen, float("-inf"))[:, None]


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
