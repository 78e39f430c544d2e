"""The sequences of a batch in one row, end to end, so that on a CPU no padding is computed.

The optimiser's step sees the same sequences and the same loss (SL-19 counts in sequences): only the zeros go. Positions
start anew with every sequence, and attention is computed for each alone.

Attention is written out in matrix products. On a CPU torch's fused kernel is several times slower backwards, in
bfloat16 above all; what it is for, memory that grows with the length and not with its square, tells where a sequence is
long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "one-by-one"
LONG = 1024
"""Tokens above which a sequence's attention weights are not kept."""
TESTED = ("llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3")
"""Whose tokens meet in attention only, of the plain kind. All other models are padded."""


def packs(config: Any) -> bool:
    """Whether a model of this configuration is given packed batches: one that was tested, on a CPU, in one process."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1"  # the wrapper that exchanges gradients is gone past
    return (
        alone
        and not torch.cuda.is_available()
        and config.model_type in TESTED
        and not config.attention_dropout
        and getattr(config, "sliding_window", None) is None
        and set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
    )


def causal_mask(length: int) -> torch.Tensor:
    """What is added to the attention scores of one sequence: 0 for a token and those before it, −∞ elsewhere."""
    return torch.full((length, length), -torch.inf).triu(1)


@contextmanager
def one_by_one(model: Any) -> Iterator[None]:
    """Within it, the model must be given ``masks=``, one for each sequence in its row."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def hidden_states(causal: Any, masks: Sequence[torch.Tensor], **inputs: torch.Tensor) -> torch.Tensor:
    """Of every token of the row, without the first dimension, which is 1: (T, D)."""
    with one_by_one(causal):
        hidden_TD: torch.Tensor = causal.base_model(**inputs, masks=masks, use_cache=False).last_hidden_state[0]
    return hidden_TD


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    masks: Sequence[torch.Tensor],
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: (1, heads, T, width) each, and (1, T, heads, width) in return."""
    lengths = [len(mask) for mask in masks]
    # Rotating the positions made them float32 under autocast; the values are still what products are computed in.
    rows = [torch.split(x[0].to(value.dtype), lengths, dim=1) for x in (query * scaling, key, value)]
    outputs = [_one(q, k, v, mask.to(v.dtype)) for q, k, v, mask in zip(*rows, masks, strict=True)]
    return torch.cat(outputs, dim=1).transpose(0, 1)[None], None


def _one(
    query_HTD: torch.Tensor, key_GTD: torch.Tensor, value_GTD: torch.Tensor, mask_TT: torch.Tensor
) -> torch.Tensor:
    """H query heads in G groups, each of which shares one head of keys and values."""
    heads, length, width = query_HTD.shape
    groups = len(key_GTD)
    if length > LONG:
        batch = query_HTD[None], key_GTD[None], value_GTD[None]  # without a batch, it keeps the weights too
        return scaled_dot_product_attention(*batch, attn_mask=mask_TT, scale=1.0, enable_gqa=True)[0]
    query = query_HTD.reshape(groups, -1, width)  # a group's heads one below the other
    mask = mask_TT.repeat(heads // groups, 1).expand(groups, -1, -1)
    weights = torch.baddbmm(mask, query, key_GTD.transpose(1, 2)).softmax(-1)
    return (weights @ value_GTD).reshape(heads, length, width)


AttentionInterface.register(NAME, attend)
