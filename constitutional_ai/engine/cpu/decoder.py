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
from constitutional_ai.engine.cpu.kernels import HEAD_MULTIPLE
from constitutional_ai.engine.cpu.low_rank import LowRank, is_adaptable
from constitutional_ai.engine.cpu.memory import Arena
from constitutional_ai.engine.cpu.projection import Projection, RmsNorm
from constitutional_ai.engine.kv_cache import KVCache


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


class Updates(NamedTuple):
    """What LoRA adds to the projections of one layer."""

    qkv: LowRank | None = None
    out: LowRank | None = None
    gate: LowRank | None = None
    up: LowRank | None = None
    down: LowRank | None = None

    @staticmethod
    def of(module: Any, dtype: torch.dtype) -> Updates:
        """Read the updates that are active in a module."""
        attention, mlp = module.self_attn, module.mlp
        joined = (attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,)
        apart = (mlp.gate_proj,), (mlp.up_proj,), (mlp.down_proj,)
        return Updates(*(LowRank.of(dtype, *modules) for modules in joined + apart))


class Decoder:
    """A forward pass that takes the weights of a causal language model over and computes the same."""

    def __init__(
        self,
        model: Any,
        *,
        int8: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        copy: bool = False,
    ) -> None:
        """``model`` must be one that this module ``supports``. It cannot be used afterwards, unless with ``copy``.

        With ``int8`` all weights but the embedding's are rounded to 8 bits, and all else is computed in that dtype,
        for which there must be kernels. ``dtype`` is what is computed in, if not the model's own.
        """
        self.config, self.device, self.dtype = model.config, model.device, int8 or dtype or model.dtype
        attention = model.model.layers[0].self_attn
        self._head_dim = attention.head_dim
        self._embedding, self._rotary = model.model.embed_tokens.weight.detach(), model.model.rotary_emb
        kernels = load_kernels(self.dtype)
        self._kernels = kernels if self._head_dim % HEAD_MULTIPLE == 0 else None
        kernels_of, arena = kernels if int8 else self._kernels, Arena() if int8 else None
        linear = partial(Projection.of, kernels_of, self.dtype, arena, copy=copy)
        self._layers = [Layer.of(linear, module, self.dtype) for module in model.model.layers]
        self._updates = [Updates()] * len(self._layers)
        self._norm = RmsNorm.of(model.model.norm, self.dtype)
        self._head = linear(model.lm_head) if hasattr(model, "lm_head") else None
        self._attention = DecoderAttention(attention.scaling, self.dtype, self._kernels)
        self.skips_masked = self._kernels is not None and self._kernels.has_tiles

    def paths(self) -> dict[str, str]:
        """Return which code computes attention and matrix products."""
        number, attention, products = str(self.dtype).removeprefix("torch."), "torch", "oneDNN"
        if self._kernels:
            attention = "AMX kernels" if self._kernels.has_tiles else "kernels in decode, torch in prefill"
        if self._layers[0].out.onednn is None:
            products = "kernels for 8-bit weights"
        elif (self._head and self._head.ours) or any(layer.up.ours for layer in self._layers):
            products = "kernels and oneDNN"
        return {"attention": f"{attention}, {number}", "products": f"{products}, {number}"}

    def update(self, modules: Any) -> None:
        """Take the LoRA updates that are active in a model's layers, as they are now."""
        self._updates = [Updates.of(module, self.dtype) for module in modules]

    def __call__(
        self,
        tokens_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        mask: AttentionMask,
        cache: KVCache,
        prefix: KeysValues | None,
        keep: int,
        head_OE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits (B, ``keep``, vocabulary): see ``Forward``."""
        T, last = mask.width, len(self._layers) - 1
        present_BT = self._attention.present(mask)
        x_NE: torch.Tensor = self._embedding[tokens_BT[present_BT]].to(self.dtype)
        cosine, sine = self._rotary(x_NE, positions_BT[present_BT][None])
        prepared = self._attention.prepare((cosine[0], sine[0]), mask, cache, prefix)
        for number, (layer, updates) in enumerate(zip(self._layers, self._updates, strict=True)):
            wanted = keep if number == last else T  # no other results of the last layer are needed
            heads_NXD = self._heads(layer, x_NE, updates.qkv)
            attended_MHD = self._attention(heads_NXD, prepared, number, wanted)
            if wanted == 0:
                return x_NE.new_empty(len(tokens_BT), 0, len(self._embedding))
            x_NE = x_NE[_last_indices(present_BT, wanted)] if wanted < T else x_NE
            x_NE = layer.out(attended_MHD.flatten(1), x_NE, update=updates.out)
            gated_NF = layer.up.gated(x_NE, layer.gate, layer.after, updates.up, updates.gate)
            x_NE = layer.down(gated_NF, x_NE, update=updates.down)
        return _by_sequence(self._outputs(x_NE, head_OE), present_BT[:, T - keep :])

    def _outputs(self, x_NE: torch.Tensor, head_OE: torch.Tensor | None) -> torch.Tensor:
        """Return the logits (N, V) of the model's own head, or the outputs (N, O) of another one."""
        if head_OE is not None:
            return self._norm(x_NE, self._kernels).float() @ head_OE.float().T
        assert self._head is not None
        return self._head(x_NE, norm=self._norm)

    def _heads(self, layer: Layer, x_NE: torch.Tensor, update: LowRank | None) -> torch.Tensor:
        """Return H queries, K keys and K values (N, H + 2K, D), not yet rotated."""
        K, kernels = self.config.num_key_value_heads, self._kernels
        heads = layer.qkv(x_NE, norm=layer.before, update=update).view(len(x_NE), -1, self._head_dim)
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
    return supports_int8(model) and _multiplies(model.dtype)


def supports_copy(model: Any, dtype: torch.dtype) -> bool:
    """Return whether it can be in ``dtype``, from a copy of its weights, beside which LoRA's updates may stand."""
    return _has_layers_of(is_adaptable, model) and _multiplies(dtype)


def supports_int8(model: Any) -> bool:
    """Return whether it can be with weights in 8 bits, stored in any precision: SiLU and plain projections."""
    return _has_layers_of(_is_plain, model)  # an adapter would be lost


def _multiplies(dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies numbers of this type on this processor."""
    if not torch._C._has_mkldnn:
        return False
    bfloat16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(dtype == torch.float32 or bfloat16)


def _is_plain(linear: Any) -> bool:
    return type(linear) is nn.Linear


def _has_layers_of(accepts: Callable[[Any], bool], model: Any) -> bool:
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
        and all(map(accepts, linears))
        and _is_plain(getattr(model, "lm_head", None) or getattr(model, "score", None))
    )
