"""What new tokens of rows see of their row.

Axes: B rows, T their new tokens, left-padded, L what they see of their own: what is known of it, and these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class Seen:
    """Of each row so many tokens are known, right before the new ones. These see them, and what is new before them."""

    known: list[int]
    segments: list[list[int]]
    """Of each row's new tokens: 0 of what all later ones see, then 1, 2, … of parts that do not see each other."""

    @cached_property
    def width(self) -> int:
        """T."""
        return max(map(len, self.segments))

    @cached_property
    def plain(self) -> bool:
        """Whether no token is hidden from a later one of its row."""
        return not any(map(any, self.segments))

    @cached_property
    def before(self) -> torch.Tensor:
        """``known`` (B,)."""
        return torch.tensor(self.known)

    @cached_property
    def padding(self) -> torch.Tensor:
        """Columns (B,) that a row leaves empty."""
        return torch.tensor([self.width - len(of_row) for of_row in self.segments])

    @cached_property
    def parts(self) -> torch.Tensor:
        """``segments`` (B, T), -1 where nothing is."""
        return torch.tensor([[-1] * (self.width - len(of_row)) + of_row for of_row in self.segments])

    def there(self, last: int) -> torch.Tensor:
        """Which of the ``last`` columns (B, last) hold tokens."""
        return torch.arange(self.width - last, self.width) >= self.padding[:, None]

    def mask(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor | None:
        """Added to scores (B, 1, T, L). Padding sees itself, so that it holds numbers. None: all that comes before."""
        most, width = max(self.known), self.width
        if self.plain and not most and not self.padding.any():
            return None
        asks_BT1, asked_B1T = self.parts[:, :, None], self.parts[:, None]
        seen_BTT = ((asked_B1T == 0) | (asked_B1T == asks_BT1)) & (asked_B1T >= 0)
        seen_BTT &= torch.ones((width, width), dtype=torch.bool).tril()
        seen_BTT |= torch.eye(width, dtype=torch.bool)
        before_BTK = (torch.arange(most) >= most - self.before[:, None])[:, None].expand(-1, width, -1)
        hidden_B1TL = ~torch.cat([before_BTK, seen_BTT], dim=2)[:, None].to(device)
        return torch.zeros(hidden_B1TL.shape, dtype=dtype, device=device).masked_fill(
            hidden_B1TL, float("-inf")
        )
