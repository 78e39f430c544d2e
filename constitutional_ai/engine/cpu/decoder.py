"""The layers of a Llama-like decoder in few passes over memory, for answers and scores on a processor.

transformers' modules are the reference, and train. They compute each projection, activation and sum by itself, from
weights that are laid out anew for the processor in every product. Here the weights are laid out once, what is projected
from the same numbers is projected together, and activations and sums are done where the product is written.

Axes: B rows, T new tokens, N of all rows (B x T, without padding where our kernels read rows), E hidden size, H query
heads, K key heads, D size of a head.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from constitutional_ai.engine.attention import KeysValues
from constitutional_ai.engine.cpu.decoder_attention import DecoderAttention
from constitutional_ai.engine.cpu.int8 import Linear8
from constitutional_ai.engine.cpu.kernels import WHOLE, Fused, fused
from constitutional_ai.engine.cpu.memory import Arena, huge_pages
from constitutional_ai.engine.seen import Seen

_linear = torch.ops.mkldnn._linear_pointwise

FEW, NARROW = 64, 4096
"""Our own product was faster than oneDNN's of few rows, and of many that have few numbers each."""


class Linear(NamedTuple):
    """Rows of one or several projections, in the layout that oneDNN multiplies, and our own kernel."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    features: int
    fused: Fused | None
    blocks: int | None
    """Where our kernel finds the same numbers, if it can read them."""

    @staticmethod
    def of(fused: Fused | None, *modules: nn.Linear) -> Linear:
        """Takes the weights over: the modules have none afterwards, so that memory holds them once."""
        huge_pages()
        weights = [m.weight.detach() for m in modules]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        biases = [m.bias.detach() for m in modules if m.bias is not None]
        for module in modules:
            module.register_parameter("weight", None)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        blocks = fused.blocks_of(weight, packed) if fused else None
        return Linear(packed, torch.cat(biases) if biases else None, len(weight), fused, blocks)

    def __call__(
        self, x_NE: torch.Tensor, other_NF: torch.Tensor | None = None, norm: Norm | None = None
    ) -> torch.Tensor:
        """Of what ``norm`` makes of ``x_NE``. ``other_NF`` is added."""
        if self.fused and self.blocks and _few(x_NE):
            return self.fused.product(x_NE, self.blocks, self.features, self.bias, other_NF, norm=norm)
        x_NE = norm(x_NE, self.fused) if norm else x_NE
        if other_NF is not None:
            return self._of_onednn(x_NE, other_NF, "add")
        out: torch.Tensor = _linear(x_NE, self.weight, self.bias, "none", [], "")
        return out

    def gated(self, x_NE: torch.Tensor, gate: Linear, norm: Norm) -> torch.Tensor:
        """Times SiLU of what ``gate`` gives."""
        plain = self.bias is None and gate.bias is None
        if self.fused and self.blocks and gate.blocks and plain and _few(x_NE):
            return self.fused.product(x_NE, self.blocks, self.features, gate=gate.blocks, norm=norm)
        x_NE = norm(x_NE, self.fused)
        gates = _linear(x_NE, gate.weight, gate.bias, "swish", [], "")
        return self._of_onednn(x_NE, gates, "mul")

    def _of_onednn(self, x_NE: torch.Tensor, other_NF: torch.Tensor, how: str) -> torch.Tensor:
        out: torch.Tensor = _linear.binary(x_NE, other_NF, self.weight, self.bias, how)
        return out


def _few(x_NE: torch.Tensor) -> bool:
    rows, numbers = x_NE.shape
    return rows <= FEW or numbers <= NARROW


class Norm(NamedTuple):
    """Over the last axis, in float32, rounded before it is weighed: as transformers does it."""

    weight: torch.Tensor
    epsilon: float

    @staticmethod
    def of(module: Any, dtype: torch.dtype) -> Norm:
        return Norm(module.weight.detach().to(dtype), module.variance_epsilon)

    def __call__(self, x: torch.Tensor, fused: Fused | None) -> torch.Tensor:
        if fused:
            return fused.norm(x.contiguous(), self.weight, self.epsilon)
        x32 = x.to(torch.float32, copy=True)
        x32 *= x32.square().mean(-1, keepdim=True).add_(self.epsilon).rsqrt_()
        return x32.to(x.dtype).mul_(self.weight)


class Layer(NamedTuple):
    before: Norm
    qkv: Linear | Linear8
    q_norm: Norm | None
    k_norm: Norm | None
    """Of Qwen3."""
    out: Linear | Linear8
    after: Norm
    gate: Any
    up: Any
    """Both a ``Linear``, or both a ``Linear8``: one takes the other."""
    down: Linear | Linear8

    @staticmethod
    def of(linear: Callable[..., Any], module: Any, dtype: torch.dtype) -> Layer:
        """``linear`` makes one of the modules whose rows it puts one behind the other."""
        attention, mlp = module.self_attn, module.mlp
        return Layer(
            before=Norm.of(module.input_layernorm, dtype),
            qkv=linear(attention.q_proj, attention.k_proj, attention.v_proj),
            q_norm=Norm.of(attention.q_norm, dtype) if hasattr(attention, "q_norm") else None,
            k_norm=Norm.of(attention.k_norm, dtype) if hasattr(attention, "k_norm") else None,
            out=linear(attention.o_proj),
            after=Norm.of(module.post_attention_layernorm, dtype),
            gate=linear(mlp.gate_proj),
            up=linear(mlp.up_proj),
            down=linear(mlp.down_proj),
        )


class Decoder:
    """Takes the weights of a causal language model over, and computes what that computed."""

    def __init__(self, model: Any, *, int8: Fused | None = None, dtype: torch.dtype | None = None) -> None:
        """For a ``model`` that ``takes`` says yes of. It cannot be used afterwards.

        ``int8`` are kernels that take weights in 8 bits: these are then kept so, but for the embedding's, whatever they
        were. ``dtype`` is what all else is computed in.
        """
        self.config, self.device, self.dtype = model.config, model.device, dtype or model.dtype
        attention = model.model.layers[0].self_attn
        self._head_dim = attention.head_dim
        self._embedding, self._rotation = model.model.embed_tokens.weight.detach(), model.model.rotary_emb
        self._fused = fused(self.dtype) if self._head_dim % WHOLE == 0 else None
        linear = partial(Linear8.of, int8, self.dtype, Arena()) if int8 else partial(Linear.of, self._fused)
        self._layers = [Layer.of(linear, module, self.dtype) for module in model.model.layers]
        self._norm, self._head = Norm.of(model.model.norm, self.dtype), linear(model.lm_head)
        self._attention = DecoderAttention(
            self.config.num_key_value_heads, attention.scaling, self.dtype, self._fused
        )
        self.leaves_out = self._fused is not None and self._fused.has_tiles

    def __call__(
        self,
        tokens_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        seen: torch.Tensor | Seen,
        cache: Any | None,
        shared: KeysValues | None,
        keep: int,
    ) -> torch.Tensor:
        (B, T), last = tokens_BT.shape, len(self._layers) - 1
        how = self._attention.how(seen)
        there_BT = how.there(T) if isinstance(how, Seen) else torch.ones(B, T, dtype=torch.bool)
        x_NE: torch.Tensor = self._embedding[tokens_BT[there_BT]].to(self.dtype)
        cosine, sine = self._rotation(x_NE, positions_BT[there_BT][None])
        rotation = cosine[0], sine[0]
        for number, layer in enumerate(self._layers):
            kept = keep if number == last else T  # of the last layer nothing else is asked
            heads_NXD = self._heads(layer, x_NE)
            attended_MHD = self._attention(heads_NXD, rotation, how, cache, number, shared, kept, B)
            if kept == 0:
                return x_NE.new_empty(B, 0, len(self._embedding))
            x_NE = x_NE[_last(there_BT, kept)] if kept < T else x_NE
            x_NE = layer.out(attended_MHD.flatten(1), x_NE)
            x_NE = layer.down(layer.up.gated(x_NE, layer.gate, layer.after), x_NE)
        return _by_row(self._head(x_NE, norm=self._norm), there_BT[:, T - keep :])

    def _heads(self, layer: Layer, x_NE: torch.Tensor) -> torch.Tensor:
        """H queries, K keys and K values (N, H + 2K, D), their positions not yet in them."""
        K, fused = self.config.num_key_value_heads, self._fused
        heads = layer.qkv(x_NE, norm=layer.before).view(len(x_NE), -1, self._head_dim)
        if layer.q_norm and layer.k_norm:
            query, key, value = heads[:, : -2 * K], heads[:, -2 * K : -K], heads[:, -K:]
            heads = torch.cat([layer.q_norm(query, fused), layer.k_norm(key, fused), value], dim=1)
        return heads


def _last(there_BT: torch.Tensor, keep: int) -> torch.Tensor:
    """Numbers, among those that are there, of the tokens in the last ``keep`` columns."""
    number_BT = (there_BT.flatten().cumsum(0) - 1).view(there_BT.shape)
    return number_BT[:, -keep:][there_BT[:, -keep:]]


def _by_row(logits_MV: torch.Tensor, there_BS: torch.Tensor) -> torch.Tensor:
    """(B, S, V), 0 where no token is."""
    if len(logits_MV) == there_BS.numel():
        return logits_MV.view(*there_BS.shape, -1)
    laid = logits_MV.new_zeros(*there_BS.shape, logits_MV.shape[1])
    laid[there_BS] = logits_MV
    return laid


def takes(model: Any) -> bool:
    """Whether one that ``shared_prefix.takes`` says yes of can be computed here, with its weights as they are."""
    return (
        takes_int8(model)
        and torch._C._has_mkldnn
        and (
            model.dtype == torch.float32
            or (model.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )
    )


def takes_int8(model: Any) -> bool:
    """The same with weights in 8 bits: SiLU, plain projections, of any type."""
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
