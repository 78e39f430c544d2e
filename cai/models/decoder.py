"""The layers of a Llama-like decoder in few passes over memory, for answers and scores on a processor.

transformers' modules are the reference, and train. They compute each projection, activation and sum by itself, from
weights that are laid out anew for the processor in every product. Here the weights are laid out once, what is projected
from the same numbers is projected together, and activations and sums are done where the product is written.

Axes: B rows, T new tokens, N = B x T, E hidden size, H query heads, K key heads, D size of a head.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from cai.models.attention import KeysValues, attend, attend_far, by_key_head
from cai.models.fused import WHOLE, Fused, Packed, fused
from cai.models.memory import huge_pages

_linear = torch.ops.mkldnn._linear_pointwise


class Linear(NamedTuple):
    """Rows of one or several projections, in the layout that oneDNN multiplies."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @staticmethod
    def of(*modules: nn.Linear) -> Linear:
        """Takes the weights over: the modules have none afterwards, so that memory holds them once."""
        huge_pages()
        weight = torch.cat([m.weight.detach() for m in modules])
        biases = [m.bias.detach() for m in modules if m.bias is not None]
        for module in modules:
            module.register_parameter("weight", None)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        return Linear(packed, torch.cat(biases) if biases else None)

    def __call__(self, x_NE: torch.Tensor, then: str = "none") -> torch.Tensor:
        """``then`` is applied to each number: "swish" is SiLU."""
        out: torch.Tensor = _linear(x_NE, self.weight, self.bias, then, [], "")
        return out

    def onto(self, x_NE: torch.Tensor, other: torch.Tensor, how: str) -> torch.Tensor:
        """``how`` is "add" or "mul"."""
        out: torch.Tensor = _linear.binary(x_NE, other, self.weight, self.bias, how)
        return out


class Norm(NamedTuple):
    """Over the last axis, in float32, rounded before it is weighed: as transformers does it."""

    weight: torch.Tensor
    epsilon: float

    @staticmethod
    def of(module: Any) -> Norm:
        return Norm(module.weight.detach(), module.variance_epsilon)

    def __call__(self, x: torch.Tensor, fused: Fused | None) -> torch.Tensor:
        if fused:
            return fused.norm(x.contiguous(), self.weight, self.epsilon)
        x32 = x.to(torch.float32, copy=True)
        x32 *= x32.square().mean(-1, keepdim=True).add_(self.epsilon).rsqrt_()
        return x32.to(x.dtype).mul_(self.weight)


class Layer(NamedTuple):
    before: Norm
    qkv: Linear
    q_norm: Norm | None
    k_norm: Norm | None
    """Of Qwen3."""
    out: Linear
    after: Norm
    gate: Linear
    up: Linear
    down: Linear

    @staticmethod
    def of(module: Any) -> Layer:
        attention, mlp = module.self_attn, module.mlp
        return Layer(
            before=Norm.of(module.input_layernorm),
            qkv=Linear.of(attention.q_proj, attention.k_proj, attention.v_proj),
            q_norm=Norm.of(attention.q_norm) if hasattr(attention, "q_norm") else None,
            k_norm=Norm.of(attention.k_norm) if hasattr(attention, "k_norm") else None,
            out=Linear.of(attention.o_proj),
            after=Norm.of(module.post_attention_layernorm),
            gate=Linear.of(mlp.gate_proj),
            up=Linear.of(mlp.up_proj),
            down=Linear.of(mlp.down_proj),
        )


class Decoder:
    """Takes the weights of a causal language model over, and computes what that computed."""

    def __init__(self, model: Any) -> None:
        """For a ``model`` that ``takes`` says yes of. It cannot be used afterwards."""
        self.config, self.device, self.dtype = model.config, model.device, model.dtype
        self._scaling = model.model.layers[0].self_attn.scaling
        self._head_dim = model.model.layers[0].self_attn.head_dim
        self._embedding, self._rotation = model.model.embed_tokens.weight.detach(), model.model.rotary_emb
        self._layers = [Layer.of(module) for module in model.model.layers]
        self._norm, self._head = Norm.of(model.model.norm), Linear.of(model.lm_head)
        self._fused = fused(self.dtype) if self._head_dim % WHOLE == 0 else None
        self._packed: tuple[KeysValues | None, list[Packed]] = None, []

    def __call__(
        self,
        tokens_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        mask: torch.Tensor | None,
        cache: Any | None,
        shared: KeysValues | None,
        keep: int,
    ) -> torch.Tensor:
        (B, T), last = tokens_BT.shape, len(self._layers) - 1
        begun, look_back = self._begun(shared)
        x_NE: torch.Tensor = self._embedding[tokens_BT.reshape(-1)]
        rotation = self._rotation(x_NE, positions_BT)
        for number, layer in enumerate(self._layers):
            query, key, value = self._heads(layer, x_NE, rotation, cache, number)
            if number == last and keep < T:  # of the last layer nothing else is asked
                if keep == 0:
                    return x_NE.new_empty(B, 0, len(self._embedding))
                query = query[..., -keep:, :].contiguous()
                x_NE = x_NE.view(B, T, -1)[:, -keep:].reshape(B * keep, -1)
                mask = mask if mask is None else mask[:, :, -keep:]
            far = look_back(query, begun[number], self._scaling) if begun else None
            attended = self._attended(query, key, value, mask, far, cache)
            x_NE = layer.out.onto(attended.reshape(len(x_NE), -1), x_NE, "add")
            normed_NE = layer.after(x_NE, self._fused)
            x_NE = layer.down.onto(layer.up.onto(normed_NE, layer.gate(normed_NE, "swish"), "mul"), x_NE, "add")
        logits_NV: torch.Tensor = self._head(self._norm(x_NE, self._fused))
        return logits_NV.view(B, keep, len(self._embedding))

    def _attended(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        far: tuple[torch.Tensor, torch.Tensor] | None,
        cache: Any | None,
    ) -> torch.Tensor:
        """(B, T, H, D)."""
        if self._fused and cache is not None and cache.first is not None:
            own = self._fused.attend_few(query, key, value, cache.first, cache.columns, self._scaling)
            return self._fused.join(own, far)
        if self._fused and self._fused.has_tiles:
            seen = self._fused.pack(key, value)
            own = self._fused.attend_many(
                query, seen, self._scaling, mask[:, 0].contiguous() if mask is not None else None
            )
            return self._fused.join(own, far)
        return attend(query, key, value, mask, self._scaling, far)

    def _begun(self, shared: KeysValues | None) -> tuple[Any, Callable[..., Any]]:
        """What all rows begin with, layer by layer, and what attends to it. Packed once for all that a batch reads."""
        if shared is None or not (self._fused and self._fused.has_tiles):
            return shared, attend_far
        if self._packed[0] is not shared:
            self._packed = shared, [self._fused.pack(*of_layer) for of_layer in shared]
        return self._packed[1], self._fused.attend_far

    def _heads(
        self,
        layer: Layer,
        x_NE: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        cache: Any | None,
        number: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """New queries (K, B, G, T, D) with their positions, and all keys and values that they meet (B, K, L, D)."""
        B, T, D = rotation[0].shape
        H, K = self.config.num_attention_heads, self.config.num_key_value_heads
        heads = layer.qkv(layer.before(x_NE, self._fused)).view(B, T, H + 2 * K, D)
        if layer.q_norm and layer.k_norm:
            normed = (
                layer.q_norm(heads[:, :, :H], self._fused),
                layer.k_norm(heads[:, :, H : H + K], self._fused),
            )
            heads = torch.cat([*normed, heads[:, :, H + K :]], dim=2)
        if self._fused and cache is not None:
            keys, values = cache.of_layer(number)
            query = self._fused.turn(heads, rotation, keys, values, cache.columns)
            return query, *((keys, values) if cache.first is not None else cache.read(number))
        if self._fused:
            key, value = heads.new_empty(2, B, K, T, D)
            columns = torch.zeros(B, dtype=torch.int64)
            return self._fused.turn(heads, rotation, key, value, columns), key, value
        turned = turn(heads[:, :, : H + K], *rotation).transpose(1, 2)
        key, value = turned[:, H:], heads[:, :, H + K :].transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, number)
        return by_key_head(turned[:, :H], K), key, value


def turn(x: torch.Tensor, cos_BTD: torch.Tensor, sin_BTD: torch.Tensor) -> torch.Tensor:
    """Rotary positions (B, T, heads, D): the first half of a head is turned against its second."""
    cos, sin, half = cos_BTD[:, :, None], sin_BTD[:, :, None], x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out


def takes(model: Any) -> bool:
    """Whether one that ``shared_prefix.takes`` says yes of can be computed here: oneDNN, SiLU, plain weights."""
    linears = [
        getattr(part, name, None)
        for layer in model.model.layers
        for part, names in ((layer.self_attn, "q k v o"), (layer.mlp, "gate up down"))
        for name in (f"{n}_proj" for n in names.split())
    ]
    return (
        model.device.type == "cpu"
        and platform.machine() in {"x86_64", "AMD64"}  # where it was tested
        and torch._C._has_mkldnn
        and (
            model.dtype == torch.float32
            or (model.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )
        and model.config.hidden_act == "silu"
        # An adapter would stand in their place, and be lost.
        and all(type(linear) is nn.Linear for linear in [*linears, model.lm_head])
    )
