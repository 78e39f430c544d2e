"""Projections whose weights are kept in 8 bits, with a scale for each feature: half the memory of bfloat16.

What they are multiplied with stays fine: each row is brought to 16 bits, with a scale of its own
(``kernels_c/int8.c``). What is lost is lost in the weights (docs/backends.md has how much).

Axes: N rows, E hidden size, F features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from constitutional_ai.engine.cpu.kernels import Kernels, Weights8
from constitutional_ai.engine.cpu.memory import Arena
from constitutional_ai.errors import ModelError

LEVELS = 127
TOGETHER = 2**18
"""Numbers that are rounded at once: in between each takes 4 bytes or more."""
WIDE, TALL = 64, 32
"""Numbers and features of a block."""


class Linear8(NamedTuple):
    """Rows of one or several projections, packed as ``kernels_c/int8.c`` reads them; stands where a ``Linear`` does."""

    weights: Weights8
    bias: torch.Tensor | None
    features: int
    kernels: Kernels

    @staticmethod
    def of(kernels: Kernels, dtype: torch.dtype, arena: Arena, *modules: nn.Linear) -> Linear8:
        """Takes the weights over: the modules have none afterwards. Raises ModelError where one is no number."""
        weights = [m.weight.detach() for m in modules]
        biases = [m.bias.detach().to(dtype) for m in modules if m.bias is not None]
        for module in modules:
            module.register_parameter("weight", None)
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        return Linear8(pack(weight, arena), torch.cat(biases) if biases else None, len(weight), kernels)

    def __call__(
        self,
        x_NE: torch.Tensor,
        other_NF: torch.Tensor | None = None,
        norm: tuple[torch.Tensor, float] | None = None,
    ) -> torch.Tensor:
        """Of what ``norm``, its weights and epsilon, makes of ``x_NE``. ``other_NF`` is added."""
        return self.kernels.product_int8(x_NE, self.weights, self.features, self.bias, other_NF, norm=norm)

    def gated(self, x_NE: torch.Tensor, gate: Linear8, norm: tuple[torch.Tensor, float]) -> torch.Tensor:
        """Times SiLU of what ``gate`` gives."""
        return self.kernels.product_int8(x_NE, self.weights, self.features, gate=gate.weights, norm=norm)


def rounded(weight_FE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers (F, E) from -127 to 127, and the scales (F) that bring them back. Raises ModelError."""
    most_F = weight_FE.abs().amax(1).float()
    if not most_F.isfinite().all():
        raise ModelError("these weights hold numbers without end or NaN: the model was broken in training.")
    scales_F = (most_F / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.round(weight_FE / scales_F[:, None]).to(torch.int8), scales_F


def pack(weight_FE: torch.Tensor, arena: Arena) -> Weights8:
    """In blocks of 32 features by 64 numbers, filled up with 0: two tiles of 16 groups of 4 numbers, 16 features."""
    F, E = weight_FE.shape
    rows, columns = -(-F // TALL), -(-E // WIDE)
    blocks = arena.take(rows * columns * TALL * WIDE).view(rows, columns, 2, 16, 16, 4)
    scales_F, sums_F = (arena.take(rows * TALL * 4).view(dtype) for dtype in (torch.float32, torch.int32))
    step = max(1, TOGETHER // E // TALL) * TALL
    for begin in range(0, F, step):
        whole, scales = rounded(weight_FE[begin : begin + step])
        filled = nn.functional.pad(whole, (0, -E % WIDE, 0, -len(whole) % TALL))
        tiles = filled.view(-1, 2, 16, columns, 16, 4).permute(0, 3, 1, 4, 2, 5)
        blocks[begin // TALL : begin // TALL + len(tiles)] = tiles
        scales_F[begin : begin + len(scales)] = scales
        sums_F[begin : begin + len(filled)] = filled.sum(1, dtype=torch.int32)
    return Weights8(blocks, scales_F, sums_F)
