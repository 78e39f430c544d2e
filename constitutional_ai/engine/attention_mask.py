"""Which earlier tokens the new tokens of a prefill attend to.

Axes: B sequences, T new tokens of each, left-padded, L the tokens of its own that a sequence attends to: those already
in the KV cache, then the new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class AttentionMask:
    """Causal attention within each sequence, but for segments that do not attend to each other."""

    known: list[int]
    """Tokens of each sequence that are already in the KV cache, right before the new ones: all of these see them."""
    segments: list[list[int]]
    """A new token has 0 here if all later ones attend to it, else the number of its segment: 1, 2, …"""
    decoding: bool = False
    """Whether this is a step of decode, for which there are kernels: a prefill of one token rounds as one of many."""

    @cached_property
    def width(self) -> int:
        """T."""
        return max(map(len, self.segments))

    @cached_property
    def is_causal(self) -> bool:
        """Whether each token attends to all earlier ones of its sequence."""
        return not any(map(any, self.segments))

    @cached_property
    def known_lengths(self) -> torch.Tensor:
        """``known`` as a tensor (B,)."""
        return torch.tensor(self.known)

    @cached_property
    def padding(self) -> torch.Tensor:
        """Columns (B,) that each sequence leaves empty before its new tokens."""
        return torch.tensor([self.width - len(segments) for segments in self.segments])

    @cached_property
    def segment_ids(self) -> torch.Tensor:
        """``segments`` as a tensor (B, T), -1 in padding."""
        return torch.tensor([[-1] * (self.width - len(segments)) + segments for segments in self.segments])

    def present(self, last: int) -> torch.Tensor:
        """Return which of the ``last`` columns (B, last) hold tokens, not padding."""
        return torch.arange(self.width - last, self.width) >= self.padding[:, None]

    def additive(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor | None:
        """Return the mask (B, 1, T, L) to add to scores; None where plain causal attention does.

        Padding attends to itself, because a softmax over nothing is NaN.
        """
        most, width = max(self.known), self.width
        if self.is_causal and not most and not self.padding.any():
            return None
        query_BT1, key_B1T = self.segment_ids[:, :, None], self.segment_ids[:, None]
        new_BTT = ((key_B1T == 0) | (key_B1T == query_BT1)) & (key_B1T >= 0)
        new_BTT &= torch.ones((width, width), dtype=torch.bool).tril()
        new_BTT |= torch.eye(width, dtype=torch.bool)
        known_BTK = (torch.arange(most) >= most - self.known_lengths[:, None])[:, None].expand(-1, width, -1)
        masked_B1TL = ~torch.cat([known_BTK, new_BTT], dim=2)[:, None].to(device)
        return torch.zeros(masked_B1TL.shape, dtype=dtype, device=device).masked_fill(
            masked_B1TL, float("-inf")
        )
