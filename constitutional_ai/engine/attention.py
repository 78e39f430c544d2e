"""Attention of sequences that share a prefix: its keys and values are kept once, and each sequence keeps only its own.

A softmax over both is split in two: the queries of *all* sequences meet the prefix in one matrix product a head, each
sequence meets its own suffix, and the two are weighed by the log of their sums (as in Hydragen and cascade attention).

Axes: B sequences, H query heads, K key heads, G query heads that share a key head, T new tokens, L tokens of a suffix,
P tokens of the prefix, D size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from transformers import AttentionInterface

from constitutional_ai.engine.attention_mask import AttentionMask
from constitutional_ai.engine.kv_cache import KVCache

NAME = "cai_shared_prefix"
MAX_SCORES = 2**24
"""Attention scores held at once where they are computed without a fused kernel: 64 MB in float32."""

KeysValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of every layer, each (1 or B, K, tokens, D)."""


class Forward(Protocol):
    """A forward pass of a model that ``architectures.supports``."""

    config: Any
    device: torch.device
    dtype: torch.dtype
    skips_masked: bool
    """Whether masked keys and values are never read, so that they may hold anything."""

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
        """Return the logits (B, ``keep``, vocabulary) after the last ``keep`` tokens; in padding they are anything.

        ``cache`` holds each sequence's suffix and takes the new keys and values. ``head_OE`` are the weights of a
        projection to take in place of the model's own: the result is then (B, ``keep``, O) in float32.
        """

    def paths(self) -> dict[str, str]:
        """Return which code computes attention and matrix products."""


class TransformersForward:
    """transformers' own modules with this attention, handed to them through their attention interface."""

    skips_masked = False

    def __init__(self, model: Any) -> None:
        self._model = model
        self.config, self.device, self.dtype = model.config, model.device, model.dtype

    def paths(self) -> dict[str, str]:
        """Return which code computes attention and matrix products."""
        return {"attention": "torch, split at the shared prefix", "products": "transformers' modules"}

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
        """See ``Forward``."""
        inputs = {
            "input_ids": tokens_BT,
            "position_ids": positions_BT,
            "attention_mask": mask.additive(self.device, self.dtype),
            "past_key_values": cache,
            "use_cache": True,
            "shared_prefix": prefix,
        }
        with _attention(self._model.config):
            if head_OE is not None:
                hidden_BTE: torch.Tensor = self._model.model(**inputs).last_hidden_state
                return hidden_BTE[:, hidden_BTE.shape[1] - keep :].float() @ head_OE.float().T
            logits: torch.Tensor = self._model(**inputs, logits_to_keep=max(keep, 1)).logits  # 0 would keep all
        return logits[:, logits.shape[1] - keep :]


@contextmanager
def _attention(config: Any) -> Iterator[None]:
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend_layer(
    module: Any,
    query_BHTD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    shared_prefix: KeysValues | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute one layer's attention, for transformers."""
    query = by_key_head(query_BHTD, key_BKLD.shape[1])
    prefix = (
        attend_prefix(query, shared_prefix[module.layer_idx], scaling) if shared_prefix is not None else None
    )
    return attend(query, key_BKLD, value_BKLD, attention_mask, scaling, prefix), None


AttentionInterface.register(NAME, _attend_layer)


def by_key_head(query_BHTD: torch.Tensor, key_heads: int) -> torch.Tensor:
    """Return the queries as (K, B, G, T, D): those that share a key head are as good as rows of it."""
    B, _, T, D = query_BHTD.shape
    return query_BHTD.reshape(B, key_heads, -1, T, D).transpose(0, 1)


def attend(
    query_KBGTD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    prefix: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """Return attention (B, T, H, D) to each sequence's suffix, joined with that to the prefix from ``attend_prefix``.

    ``mask`` (B, 1, T, L) is added to the scores of the suffix; None means plain causal attention.
    """
    K, B, G, T, D = query_KBGTD.shape
    query_BKGTD = query_KBGTD.transpose(0, 1)
    if mask is None:
        key_BHLD, value_BHLD = (x.repeat_interleave(G, dim=1) for x in (key_BKLD, value_BKLD))
        attended = attention(query_BKGTD.flatten(1, 2), key_BHLD, value_BHLD, None, scaling, causal=True)
    else:
        mask = mask.repeat(1, 1, G, 1) if T > 1 else mask
        attended = attention(query_BKGTD.flatten(2, 3), key_BKLD, value_BKLD, mask, scaling)
    out, log_sum = attended[0].reshape(B, K, G, T, D), attended[1].reshape(B, K, G, T)
    if prefix is not None:
        to_prefix, prefix_sum = prefix[0].view(K, B, G, T, D), prefix[1].view(K, B, G, T)
        share = (prefix_sum.transpose(0, 1) - log_sum).sigmoid()[..., None]
        out = torch.lerp(out, to_prefix.transpose(0, 1), share.to(out.dtype))
    return out.reshape(B, K * G, T, D).transpose(1, 2)


def attend_prefix(
    query_KBGTD: torch.Tensor, prefix: tuple[torch.Tensor, torch.Tensor], scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention of all sequences to a layer's prefix (K, B x G x T, D), and the log of its sums."""
    out, log_sum = attention(query_KBGTD.flatten(1, 3)[None], *prefix, None, scaling)
    return out[0], log_sum[0]


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention, and the log of the sum of its exponentials in float32 (without the last axis).

    ``mask`` is added to the scores. On a CPU torch's own fused kernel gives the sum as well.
    """
    if query.device.type == "cpu":
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, log_sum = fused(query, key, value, 0.0, causal, attn_mask=mask, scale=scaling)
        return out, log_sum
    return attention_in_parts(query, key, value, mask, scaling, causal)


def attention_in_parts(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same as ``attention`` on any device, for some queries at a time so that memory is bounded."""
    if causal:
        visible = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        mask = torch.zeros((), dtype=query.dtype, device=query.device).where(visible, float("-inf"))[None, None]
    size = max(1, MAX_SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    outs, log_sums = [], []
    for at in range(0, query.shape[2], size):
        scores = (query[:, :, at : at + size] @ key.transpose(2, 3)).float() * scaling
        if mask is not None:
            scores = scores + (mask if mask.shape[2] == 1 else mask[:, :, at : at + size])
        log_sums.append(scores.logsumexp(-1))
        outs.append((scores - log_sums[-1][..., None]).exp().to(value.dtype) @ value)
    return torch.cat(outs, dim=2), torch.cat(log_sums, dim=2)
