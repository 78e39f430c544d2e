"""What new tokens of rows see of their row.

Axes: B rows, T their new tokens, left-padded, L what they see of their own: what is known of it, and these.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Seen(NamedTuple):
    """Of each row so many tokens are known, right before the new ones. These see them, and each other up to themselves."""

    known: list[int]
    segments: list[list[int]]
    """Of each row's new tokens: 0 of what all of them see, 1, 2, … of parts that do not see each other."""

    @property
    def width(self) -> int:
        """T."""
        return max(map(len, self.segments))

    @property
    def padding(self) -> list[int]:
        return [self.width - len(of_row) for of_row in self.segments]

    @property
    def plain(self) -> bool:
        """Whether no token is hidden from a later one of its row."""
        return not any(map(any, self.segments))

    def padded(self, padding: int) -> list[list[int]]:
        """Segments (B, T)."""
        return [[padding] * (self.width - len(of_row)) + of_row for of_row in self.segments]

    def mask(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor | None:
        """Added to scores (B, 1, T, L). Padding sees itself, so that it holds numbers. None: all that comes before."""
        if self.plain and not any([*self.known, *self.padding]):
            return None
        most, width = max(self.known), self.width
        segments_BT = torch.tensor(self.padded(-1), device=device)
        asks_BT1, asked_B1T = segments_BT[:, :, None], segments_BT[:, None]
        seen_BTT = ((asked_B1T == 0) | (asked_B1T == asks_BT1)) & (asked_B1T >= 0)
        seen_BTT &= torch.ones((width, width), dtype=torch.bool, device=device).tril()
        seen_BTT |= torch.eye(width, dtype=torch.bool, device=device)
        before_B1 = most - torch.tensor(self.known, device=device)[:, None]
        before_BTK = (torch.arange(most, device=device) >= before_B1)[:, None].expand(-1, width, -1)
        seen_BTL = torch.cat([before_BTK, seen_BTT], dim=2)
        return torch.zeros(seen_BTL.shape, dtype=dtype, device=device).masked_fill(~seen_BTL, float("-inf"))[:, None]
