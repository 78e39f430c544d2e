"""The attention of a ``Decoder``: with AMX tiles where the processor has them, else with the other kernels and torch.

Axes: B sequences, T new tokens of each, N tokens of all, M of these whose results are wanted, X = H + 2K heads: H
queries, K keys, K values; D size of a head, L tokens of a suffix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from constitutional_ai.engine.attention import KeysValues, attend, attend_prefix, by_key_head
from constitutional_ai.engine.attention_mask import AttentionMask
from constitutional_ai.engine.cpu.kernels import Kernels, Packed, Rotation
from constitutional_ai.engine.kv_cache import KVCache


class Pass(NamedTuple):
    """What is the same in all layers of a forward pass."""

    rotation: Rotation
    mask: AttentionMask
    additive: torch.Tensor | None
    """What is added to scores (B, 1, T, L), where torch attends."""
    cache: KVCache
    prefix: Sequence[Any] | None
    """The prefix of each layer: keys and values, or ``Packed`` for tiles."""


class DecoderAttention:
    """Attention of all layers, which differ in their keys and values only."""

    def __init__(self, scaling: float, dtype: torch.dtype, kernels: Kernels | None) -> None:
        self._scaling, self._dtype, self._kernels = scaling, dtype, kernels
        self._tiles = kernels if kernels and kernels.has_tiles else None
        self._packed: tuple[KeysValues | None, list[Packed]] = None, []

    def present(self, mask: AttentionMask) -> torch.Tensor:
        """Return which tokens (B, T) are computed: without tiles, padding too."""
        return mask.present(mask.width) if self._tiles else torch.ones_like(mask.segment_ids, dtype=torch.bool)

    def prepare(
        self, rotation: Rotation, mask: AttentionMask, cache: KVCache, prefix: KeysValues | None
    ) -> Pass:
        """Return what the calls of a forward pass take. A prefix is packed once for all that a batch computes."""
        if self._tiles:
            if prefix and self._packed[0] is not prefix:
                self._packed = prefix, [self._tiles.pack(*of_layer) for of_layer in prefix]
            return Pass(rotation, mask, None, cache, self._packed[1] if prefix else None)
        in_columns = tuple(x.view(len(mask.known), mask.width, -1) for x in rotation)
        skipped = self._kernels and mask.decoding
        additive = None if skipped else mask.additive(torch.device("cpu"), self._dtype)
        return Pass((in_columns[0], in_columns[1]), mask, additive, cache, prefix)

    def __call__(self, heads_NXD: torch.Tensor, given: Pass, layer: int, keep: int) -> torch.Tensor:
        """Return attention (M, H, D) of the last ``keep`` tokens of each sequence."""
        mask, cache = given.mask, given.cache
        if not self._tiles:
            heads_BTXD = heads_NXD.view(len(mask.known), mask.width, *heads_NXD.shape[1:])
            return self._attend_padded(heads_BTXD, given, layer, keep).flatten(0, 1)
        prefix = given.prefix[layer] if given.prefix else None
        keys, values = cache.layer(layer)
        if mask.decoding and self._tiles.can_attend_decode(heads_NXD, keys):
            places = keys, values, mask.known_lengths, cache.column
            return self._tiles.attend_decode(heads_NXD, given.rotation, *places, prefix, self._scaling)
        own = cache.attended(layer)
        return self._tiles.attend_prefill(heads_NXD, given.rotation, *own, mask, prefix, self._scaling, keep)

    def _attend_padded(self, heads_BTXD: torch.Tensor, given: Pass, layer: int, keep: int) -> torch.Tensor:
        """Return (B, ``keep``, H, D), of tokens in columns, without tiles."""
        T, cache = given.mask.width, given.cache
        query = self._rotate(heads_BTXD, given, layer)[..., T - keep :, :].contiguous()
        if keep == 0:
            return query.new_empty(len(heads_BTXD), 0, 0, 0)
        far = attend_prefix(query, given.prefix[layer], self._scaling) if given.prefix else None
        if self._kernels and given.mask.decoding:
            places = *cache.layer(layer), given.mask.known_lengths, cache.column
            return self._kernels.attend_suffix(query, *places, far, self._scaling)
        (key, value), additive = cache.attended(layer), given.additive
        if keep < T:
            additive = _causal(keep, key) if additive is None else additive[:, :, T - keep :]
        return attend(query, key, value, additive, self._scaling, far)

    def _rotate(self, heads: torch.Tensor, given: Pass, layer: int) -> torch.Tensor:
        """Return rotated new queries (K, B, G, T, D); write the new keys and values into the cache."""
        keys, values = given.cache.layer(layer)
        if self._kernels:
            return self._kernels.apply_rotary(heads, given.rotation, keys, values, given.cache.column)
        K = keys.shape[1]
        rotated = apply_rotary(heads[:, :, :-K], *given.rotation).transpose(1, 2)
        given.cache.update(rotated[:, -K:], heads[:, :, -K:].transpose(1, 2), layer)
        return by_key_head(rotated[:, :-K], K)


def _causal(last: int, key_BKLD: torch.Tensor) -> torch.Tensor:
    """Return the mask (1, 1, ``last``, L) of the last tokens, each of which attends to all before it."""
    masked = torch.full((last, key_BKLD.shape[2]), float("-inf"), dtype=key_BKLD.dtype)
    return masked.triu(key_BKLD.shape[2] - last + 1)[None, None]


def apply_rotary(x: torch.Tensor, cos_BTD: torch.Tensor, sin_BTD: torch.Tensor) -> torch.Tensor:
    """Return ``x`` (B, T, heads, D) rotated by its positions: a head's first half against its second."""
    cos, sin, half = cos_BTD[:, :, None], sin_BTD[:, :, None], x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
