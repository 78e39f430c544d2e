"""Attention of rows that begin alike: the shared beginning is kept once, and each row keeps only its own tokens.

Softmax over both is split in two: the queries of *all* rows meet the beginning in one matrix product a head, each row
meets its own tokens, and the two are weighed by the log of their sums (as in Hydragen and cascade attention).

Axes: B rows, H query heads, K key heads, T new tokens, L own tokens, P tokens of the beginning, D size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from transformers import AttentionInterface

from constitutional_ai.engine.seen import Seen

NAME = "cai_shared_prefix"
SCORES = 2**24
"""How many attention scores are held at once where they are computed by hand: 64 MB in float32."""

KeysValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of every layer, each (1 or B, K, tokens, D)."""


class Forward(Protocol):
    """A model that ``shared_prefix.takes``, as the engine asks it."""

    config: Any
    device: torch.device
    dtype: torch.dtype
    leaves_out: bool
    """Whether what is hidden may be anything, as it is never read."""

    def __call__(
        self,
        tokens_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        seen: torch.Tensor | Seen,
        cache: Any | None,
        shared: KeysValues | None,
        keep: int,
    ) -> torch.Tensor:
        """Logits (B, ``keep``, vocabulary) after the last ``keep`` tokens. ``seen`` is a mask, or what gives one.

        A row that has fewer tokens has any numbers in their place.

        ``cache``, a ``decoding.RowCache``, keeps the new keys and values, and has all that each row has of its own.
        """


class OfModules:
    """transformers' own modules around this attention, handed to them through its attention interface."""

    leaves_out = False

    def __init__(self, model: Any) -> None:
        self._model = model
        self.config, self.device, self.dtype = model.config, model.device, model.dtype

    def __call__(
        self,
        tokens_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        seen: torch.Tensor | Seen,
        cache: Any | None,
        shared: KeysValues | None,
        keep: int,
    ) -> torch.Tensor:
        with _attention(self._model.config):
            out = self._model(
                input_ids=tokens_BT,
                position_ids=positions_BT,
                attention_mask=seen.mask(self.device, self.dtype) if isinstance(seen, Seen) else seen,
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=max(keep, 1),  # 0 would keep all
                shared=shared,
            )
        logits: torch.Tensor = out.logits
        return logits[:, logits.shape[1] - keep :]


@contextmanager
def _attention(config: Any) -> Iterator[None]:
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _of_layer(
    module: Any,
    query_BHTD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    shared: KeysValues | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer."""
    begun = shared[module.layer_idx] if shared is not None else None
    query = by_key_head(query_BHTD, key_BKLD.shape[1])
    far = attend_far(query, begun, scaling) if begun else None
    return attend(query, key_BKLD, value_BKLD, attention_mask, scaling, far), None


AttentionInterface.register(NAME, _of_layer)


def by_key_head(query_BHTD: torch.Tensor, key_heads: int) -> torch.Tensor:
    """Queries (K, B, G, T, D): those that share a key head are as good as rows of it."""
    B, _, T, D = query_BHTD.shape
    return query_BHTD.reshape(B, key_heads, -1, T, D).transpose(0, 1)


def attend(
    query_KBGTD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    far: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """Attention (B, T, H, D) to each row's own tokens, joined with that of ``attend_far`` to what all rows begin with.

    ``mask`` (B, 1, T, L) is added to the scores of a row's own; None means a plain causal one.
    """
    own, own_sum = _own(query_KBGTD, key_BKLD, value_BKLD, mask, scaling)
    if far is not None:
        begun = far[0].view(own.transpose(0, 1).shape).transpose(0, 1)
        begun_sum = far[1].view(begun.shape[1], len(begun), -1).transpose(0, 1)
        own = torch.lerp(own, begun, (begun_sum - own_sum).sigmoid()[..., None].to(own.dtype))
    K, B, G, T, D = query_KBGTD.shape
    return own.reshape(B, K * G, T, D).transpose(1, 2)


def _own(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, K, G x T, D), and the log of its sums (B, K, G x T)."""
    K, B, G, T, D = query.shape
    if mask is None:
        key, value = (x.repeat_interleave(G, dim=1) for x in (key, value))
        heads = query.transpose(0, 1).flatten(1, 2)
        out, total = attention(heads, key, value, mask, scaling, causal=True)
        return out.reshape(B, K, G * T, D), total.reshape(B, K, G * T)
    mask = mask.repeat(1, 1, G, 1) if T > 1 else mask
    return attention(query.transpose(0, 1).flatten(2, 3), key, value, mask, scaling)


def attend_far(
    query_KBGTD: torch.Tensor, begun: tuple[torch.Tensor, torch.Tensor], scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of all rows to what they begin with (K, B x G x T, D), and the log of its sums (K, B x G x T)."""
    out, total = attention(query_KBGTD.flatten(1, 3)[None], *begun, None, scaling)
    return out[0], total[0]


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention, and the log of the sum of its exponentials in float32 (without the last axis).

    ``mask`` is added to the scores. On a CPU torch's own fused kernel gives the sum as well.
    """
    if query.device.type == "cpu":
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, total = fused(query, key, value, 0.0, causal, attn_mask=mask, scale=scaling)
        return out, total
    return by_hand(query, key, value, mask, scaling, causal)


def by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same on any device, in pieces of the queries so that memory is bounded."""
    if causal:
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        mask = torch.zeros((), dtype=query.dtype, device=query.device).where(seen, float("-inf"))[None, None]
    size = max(1, SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    outs, totals = [], []
    for at in range(0, query.shape[2], size):
        scores = (query[:, :, at : at + size] @ key.transpose(2, 3)).float() * scaling
        if mask is not None:
            scores = scores + (mask if mask.shape[2] == 1 else mask[:, :, at : at + size])
        totals.append(scores.logsumexp(-1))
        outs.append((scores - totals[-1][..., None]).exp().to(value.dtype) @ value)
    return torch.cat(outs, dim=2), torch.cat(totals, dim=2)
