"""The layers of a Llama-like decoder in few passes over memory, for inference on a processor.

transformers' modules are the reference, and train. They compute each projection, activation and sum by itself, from
weights that oneDNN reorders anew in every product. Here weights are packed once, projections of the same input are one
product, and activations and sums are part of it.

Axes: B sequences, T new tokens, N tokens of all (B x T, without padding where our kernels prefill), E hidden size, F
features, H query heads, K key heads, D size of a head.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from constitutional_ai.engine.attention import KeysValues
from constitutional_ai.engine.attention_mask import AttentionMask
from constitutional_ai.engine.cpu.build import load_kernels
from constitutional_ai.engine.cpu.decoder_attention import DecoderAttention
from constitutional_ai.engine.cpu.int8 import pack
from constitutional_ai.engine.cpu.kernels import HEAD_MULTIPLE, Kernels, Weights8
from constitutional_ai.engine.cpu.memory import Arena
from constitutional_ai.engine.cpu.process import advise_huge_pages
from constitutional_ai.engine.kv_cache import KVCache

_linear = torch.ops.mkldnn._linear_pointwise

FEW_TOKENS, FEW_NUMBERS = 64, 4096
"""Our own product was faster than oneDNN's for few tokens, and for many of which each has few numbers."""


class Projection(NamedTuple):
    """One or several projections of the same input, their weights packed once for all products."""

    onednn: torch.Tensor | None
    """Packed as oneDNN multiplies them; None for weights in 8 bits."""
    ours: int | Weights8 | None
    """Packed as our kernels multiply them: the address of oneDNN's if they can read these, or in 8 bits."""
    bias: torch.Tensor | None
    features: int
    kernels: Kernels | None

    @staticmethod
    def of(kernels: Kernels | None, dtype: torch.dtype, int8: Arena | None, *modules: nn.Linear) -> Projection:
        """Take the weights over: the modules have none afterwards, so that memory holds them once.

        ``int8`` is where weights in 8 bits lie. Raises ModelError where they would be made of inf or NaN.
        """
        advise_huge_pages()
        weights = [m.weight.detach() for m in modules]
        biases = [m.bias.detach().to(dtype) for m in modules if m.bias is not None]
        for module in modules:
            module.register_parameter("weight", None)
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        rest = torch.cat(biases) if biases else None, len(weight), kernels
        if int8:
            return Projection(None, pack(weight, int8), *rest)
        onednn = torch.ops.mkldnn._reorder_linear_weight(weight)
        return Projection(onednn, kernels.blocks_of(weight, onednn) if kernels else None, *rest)

    def __call__(
        self, x_NE: torch.Tensor, other_NF: torch.Tensor | None = None, norm: RmsNorm | None = None
    ) -> torch.Tensor:
        """Return ``norm(x) @ W.T + bias + other`` (N, F)."""
        if self.kernels and self.ours and self._is_ours(x_NE):
            return self.kernels.product(x_NE, self.ours, self.features, self.bias, other_NF, norm=norm)
        x_NE = norm(x_NE, self.kernels) if norm else x_NE
        if other_NF is not None:
            return self._binary(x_NE, other_NF, "add")
        out: torch.Tensor = _linear(x_NE, self.onednn, self.bias, "none", [], "")
        return out

    def gated(self, x_NE: torch.Tensor, gate: Projection, norm: RmsNorm) -> torch.Tensor:
        """Return this projection of ``norm(x)`` times SiLU of the projection ``gate`` (N, F)."""
        plain = self.bias is None and gate.bias is None
        if self.kernels and self.ours and gate.ours and plain and self._is_ours(x_NE):
            return self.kernels.product(x_NE, self.ours, self.features, gate=gate.ours, norm=norm)
        x_NE = norm(x_NE, self.kernels)
        if self.onednn is None:
            return self(x_NE) * nn.functional.silu(gate(x_NE))
        return self._binary(x_NE, _linear(x_NE, gate.onednn, gate.bias, "swish", [], ""), "mul")

    def _is_ours(self, x_NE: torch.Tensor) -> bool:
        tokens, numbers = x_NE.shape
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


class Layer(NamedTuple):
    """The weights of one layer."""

    before: RmsNorm
    qkv: Projection
    q_norm: RmsNorm | None
    k_norm: RmsNorm | None
    """Qwen3 only."""
    out: Projection
    after: RmsNorm
    gate: Projection
    up: Projection
    down: Projection

    @staticmethod
    def of(linear: Callable[..., Projection], module: Any, dtype: torch.dtype) -> Layer:
        """Take a module's weights over. ``linear`` makes one projection out of the modules that it is given."""
        attention, mlp = module.self_attn, module.mlp
        return Layer(
            before=RmsNorm.of(module.input_layernorm, dtype),
            qkv=linear(attention.q_proj, attention.k_proj, attention.v_proj),
            q_norm=RmsNorm.of(attention.q_norm, dtype) if hasattr(attention, "q_norm") else None,
            k_norm=RmsNorm.of(attention.k_norm, dtype) if hasattr(attention, "k_norm") else None,
            out=linear(attention.o_proj),
            after=RmsNorm.of(module.post_attention_layernorm, dtype),
            gate=linear(mlp.gate_proj),
            up=linear(mlp.up_proj),
            down=linear(mlp.down_proj),
        )


class Decoder:
    """A forward pass that takes the weights of a causal language model over and computes the same."""

    def __init__(self, model: Any, *, int8: torch.dtype | None = None) -> None:
        """``model`` must be one that this module ``supports``. It cannot be used afterwards.

        With ``int8`` all weights but the embedding's are rounded to 8 bits, and all else is computed in that dtype,
        for which there must be kernels.
        """
        self.config, self.device, self.dtype = model.config, model.device, int8 or model.dtype
        attention = model.model.layers[0].self_attn
        self._head_dim = attention.head_dim
        self._embedding, self._rotary = model.model.embed_tokens.weight.detach(), model.model.rotary_emb
        kernels = load_kernels(self.dtype)
        self._kernels = kernels if self._head_dim % HEAD_MULTIPLE == 0 else None
        linear = partial(
            Projection.of, kernels if int8 else self._kernels, self.dtype, Arena() if int8 else None
        )
        self._layers = [Layer.of(linear, module, self.dtype) for module in model.model.layers]
        self._norm, self._head = RmsNorm.of(model.model.norm, self.dtype), linear(model.lm_head)
        self._attention = DecoderAttention(attention.scaling, self.dtype, self._kernels)
        self.skips_masked = self._kernels is not None and self._kernels.has_tiles

    def paths(self) -> dict[str, str]:
        """Return which code computes attention and matrix products."""
        number, attention, products = str(self.dtype).removeprefix("torch."), "torch", "oneDNN"
        if self._kernels:
            attention = "AMX kernels" if self._kernels.has_tiles else "kernels in decode, torch in prefill"
        if self._head.onednn is None:
            products = "kernels for 8-bit weights"
        elif self._head.ours or any(layer.up.ours for layer in self._layers):
            products = "AMX kernels and oneDNN"
        return {"attention": f"{attention}, {number}", "products": f"{products}, {number}"}

    def __call__(
        self,
        tokens_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        mask: AttentionMask,
        cache: KVCache,
        prefix: KeysValues | None,
        keep: int,
    ) -> torch.Tensor:
        """Return logits (B, ``keep``, vocabulary): see ``Forward``."""
        T, last = mask.width, len(self._layers) - 1
        present_BT = self._attention.present(mask)
        x_NE: torch.Tensor = self._embedding[tokens_BT[present_BT]].to(self.dtype)
        cosine, sine = self._rotary(x_NE, positions_BT[present_BT][None])
        prepared = self._attention.prepare((cosine[0], sine[0]), mask, cache, prefix)
        for number, layer in enumerate(self._layers):
            wanted = keep if number == last else T  # no other results of the last layer are needed
            attended_MHD = self._attention(self._heads(layer, x_NE), prepared, number, wanted)
            if wanted == 0:
                return x_NE.new_empty(len(tokens_BT), 0, len(self._embedding))
            x_NE = x_NE[_last_indices(present_BT, wanted)] if wanted < T else x_NE
            x_NE = layer.out(attended_MHD.flatten(1), x_NE)
            x_NE = layer.down(layer.up.gated(x_NE, layer.gate, layer.after), x_NE)
        return _by_sequence(self._head(x_NE, norm=self._norm), present_BT[:, T - keep :])

    def _heads(self, layer: Layer, x_NE: torch.Tensor) -> torch.Tensor:
        """Return H queries, K keys and K values (N, H + 2K, D), not yet rotated."""
        K, kernels = self.config.num_key_value_heads, self._kernels
        heads = layer.qkv(x_NE, norm=layer.before).view(len(x_NE), -1, self._head_dim)
        if layer.q_norm and layer.k_norm:
            query, key, value = heads[:, : -2 * K], heads[:, -2 * K : -K], heads[:, -K:]
            heads = torch.cat([layer.q_norm(query, kernels), layer.k_norm(key, kernels), value], dim=1)
        return heads


def _last_indices(present_BT: torch.Tensor, keep: int) -> torch.Tensor:
    """Return the indices, counted without padding, of each sequence's last ``keep`` tokens."""
    index_BT = (present_BT.flatten().cumsum(0) - 1).view(present_BT.shape)
    return index_BT[:, -keep:][present_BT[:, -keep:]]


def _by_sequence(logits_MV: torch.Tensor, present_BS: torch.Tensor) -> torch.Tensor:
    """Return the logits as (B, S, V), 0 in padding."""
    if len(logits_MV) == present_BS.numel():
        return logits_MV.view(*present_BS.shape, -1)
    padded = logits_MV.new_zeros(*present_BS.shape, logits_MV.shape[1])
    padded[present_BS] = logits_MV
    return padded


def supports(model: Any) -> bool:
    """Return whether a model that ``architectures.supports`` can be computed here in its own precision."""
    return (
        supports_int8(model)
        and torch._C._has_mkldnn
        and (
            model.dtype == torch.float32
            or (model.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )
    )


def supports_int8(model: Any) -> bool:
    """Return the same for weights in 8 bits, stored in any precision: SiLU and plain projections."""
    linears = [
        getattr(part, name, None)
        for layer in model.model.layers
        for part, names in ((layer.self_attn, "q k v o"), (layer.mlp, "gate up down"))
        for name in (f"{n}_proj" for n in names.split())
    ]
    return (
        model.device.type == "cpu"
        and platform.machine() in {"x86_64", "AMD64"}  # where it was tested
        and model.config.hidden_act == "silu"
        # An adapter would stand in their place, and be lost.
        and all(type(linear) is nn.Linear for linear in [*linears, model.lm_head])
    )
