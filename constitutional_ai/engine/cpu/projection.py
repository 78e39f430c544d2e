"""Projections of a decoder: weights packed once, with the norm before and the activation or residual after them.

Axes: N tokens, E hidden size, F features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from constitutional_ai.engine.cpu.int8 import pack
from constitutional_ai.engine.cpu.kernels import Kernels, Weights8
from constitutional_ai.engine.cpu.low_rank import LowRank, base_of
from constitutional_ai.engine.cpu.memory import Arena
from constitutional_ai.engine.cpu.process import advise_huge_pages

_linear = torch.ops.mkldnn._linear_pointwise

FEW_TOKENS, FEW_NUMBERS, FEW_TOKENS_32 = 64, 4096, 96
"""Our product of tiles was faster than oneDNN's for few tokens, and for many of which each has few numbers; in float32
for few tokens."""


class Projection(NamedTuple):
    """One or several projections of the same input, their weights packed once for all products."""

    onednn: torch.Tensor | None
    """Packed as oneDNN multiplies them; None where only our kernels do."""
    ours: int | Weights8 | None
    """Packed as our kernels multiply them: the address of oneDNN's if they can read these, or in 8 bits."""
    bias: torch.Tensor | None
    features: int
    kernels: Kernels | None

    @staticmethod
    def of(
        kernels: Kernels | None, dtype: torch.dtype, int8: Arena | None, *modules: Any, copy: bool = False
    ) -> Projection:
        """Take the weights over: the modules have none afterwards, so that memory holds them once.

        With ``copy`` they keep them. ``int8`` is where weights in 8 bits lie. Raises ModelError where they would be
        made of inf or NaN.
        """
        advise_huge_pages()
        linears = [base_of(module) for module in modules]
        weights = [m.weight.detach() for m in linears]
        biases = [m.bias.detach().to(dtype) for m in linears if m.bias is not None]
        for module in [] if copy else linears:
            module.register_parameter("weight", None)
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        rest = torch.cat(biases) if biases else None, len(weight), kernels
        if int8:
            return Projection(None, pack(weight, int8), *rest)
        weight = weight.to(dtype)
        onednn = torch.ops.mkldnn._reorder_linear_weight(weight)
        return Projection(onednn, kernels.blocks_of(weight, onednn) if kernels else None, *rest)

    def __call__(
        self,
        x_NE: torch.Tensor,
        other_NF: torch.Tensor | None = None,
        norm: RmsNorm | None = None,
        update: LowRank | None = None,
    ) -> torch.Tensor:
        """Return ``norm(x) @ (W + update).T + bias + other`` (N, F)."""
        if update:
            x_NE = norm(x_NE, self.kernels) if norm else x_NE
            return update.add_to(self(x_NE, other_NF), x_NE)
        if self.kernels and self.ours and self._is_ours(x_NE):
            return self.kernels.product(x_NE, self.ours, self.features, self.bias, other_NF, norm=norm)
        x_NE = norm(x_NE, self.kernels) if norm else x_NE
        if other_NF is not None:
            return self._binary(x_NE, other_NF, "add")
        out: torch.Tensor = _linear(x_NE, self.onednn, self.bias, "none", [], "")
        return out

    def gated(
        self,
        x_NE: torch.Tensor,
        gate: Projection,
        norm: RmsNorm,
        update: LowRank | None = None,
        gate_update: LowRank | None = None,
    ) -> torch.Tensor:
        """Return this projection of ``norm(x)`` times SiLU of the projection ``gate`` (N, F), each with its update."""
        if update or gate_update:
            x_NE = norm(x_NE, self.kernels)
            gated = nn.functional.silu(gate(x_NE, update=gate_update), inplace=True)
            return gated.mul_(self(x_NE, update=update))
        plain = self.bias is None and gate.bias is None
        if self.kernels and self.ours and gate.ours and plain and self._is_ours(x_NE):
            return self.kernels.product(x_NE, self.ours, self.features, gate=gate.ours, norm=norm)
        x_NE = norm(x_NE, self.kernels)
        if self.onednn is None:
            return self(x_NE) * nn.functional.silu(gate(x_NE))
        return self._binary(x_NE, _linear(x_NE, gate.onednn, gate.bias, "swish", [], ""), "mul")

    def _is_ours(self, x_NE: torch.Tensor) -> bool:
        tokens, numbers = x_NE.shape
        if x_NE.dtype == torch.float32:
            return self.onednn is None or tokens <= FEW_TOKENS_32
        return self.onednn is None or tokens <= FEW_TOKENS or numbers <= FEW_NUMBERS

    def _binary(self, x_NE: torch.Tensor, other_NF: torch.Tensor, how: str) -> torch.Tensor:
        out: torch.Tensor = _linear.binary(x_NE, other_NF, self.onednn, self.bias, how)
        return out


class RmsNorm(NamedTuple):
    """An RMS norm over the last axis in float32, rounded before it is multiplied: as in transformers."""

    weight: torch.Tensor
    epsilon: float

    @staticmethod
    def of(module: Any, dtype: torch.dtype) -> RmsNorm:
        return RmsNorm(module.weight.detach().to(dtype), module.variance_epsilon)

    def __call__(self, x: torch.Tensor, kernels: Kernels | None) -> torch.Tensor:
        if kernels:
            return kernels.rms_norm(x.contiguous(), self.weight, self.epsilon)
        x32 = x.to(torch.float32, copy=True)
        x32 *= x32.square().mean(-1, keepdim=True).add_(self.epsilon).rsqrt_()
        return x32.to(x.dtype).mul_(self.weight)
