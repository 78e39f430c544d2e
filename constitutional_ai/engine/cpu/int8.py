"""Projections with weights in 8 bits and a scale for each feature: half the memory of bfloat16.

Activations are quantised to 16 bits with a scale for each token (``kernels_c/int8.c``), so only the rounding of weights
loses anything. docs/backends.md says how much.

Axes: N tokens, E hidden size, F features.
"""

from __future__ import annotations

import torch
from torch import nn

from constitutional_ai.engine.cpu.kernels import Weights8
from constitutional_ai.engine.cpu.memory import Arena
from constitutional_ai.errors import ModelError

LEVELS = 127
TOGETHER = 2**18
"""Weights that are rounded at once: meanwhile each takes 4 bytes or more."""
WIDE, TALL = 64, 32
"""Inputs and features of a block."""


def round_weights(weight_FE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return whole numbers (F, E) from -127 to 127, and the scales (F) that undo it.

    Raises ModelError for inf and NaN.
    """
    most_F = weight_FE.abs().amax(1).float()
    if not most_F.isfinite().all():
        raise ModelError("the weights contain inf or NaN. Use an earlier checkpoint.")
    scales_F = (most_F / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.round(weight_FE / scales_F[:, None]).to(torch.int8), scales_F


def pack(weight_FE: torch.Tensor, arena: Arena) -> Weights8:
    """Return the weights in blocks of 32 features by 64 inputs, padded with 0.

    A block is two tiles of 16 groups of 4 inputs by 16 features.
    """
    F, E = weight_FE.shape
    rows, columns = -(-F // TALL), -(-E // WIDE)
    blocks = arena.take(rows * columns * TALL * WIDE).view(rows, columns, 2, 16, 16, 4)
    scales_F, sums_F = (arena.take(rows * TALL * 4).view(dtype) for dtype in (torch.float32, torch.int32))
    step = max(1, TOGETHER // E // TALL) * TALL
    for begin in range(0, F, step):
        whole, scales = round_weights(weight_FE[begin : begin + step])
        filled = nn.functional.pad(whole, (0, -E % WIDE, 0, -len(whole) % TALL))
        tiles = filled.view(-1, 2, 16, columns, 16, 4).permute(0, 3, 1, 4, 2, 5)
        blocks[begin // TALL : begin // TALL + len(tiles)] = tiles
        scales_F[begin : begin + len(scales)] = scales
        sums_F[begin : begin + len(filled)] = filled.sum(1, dtype=torch.int32)
    return Weights8(blocks, scales_F, sums_F)
