"""The attention of a ``Decoder``: with AMX tiles where the processor has them, else with the other kernels and torch.

Axes: B sequences, T new tokens of each, N tokens of all, M of these whose results are wanted, X = H + 2K heads: H
queries, K keys, K values; D size of a head, L tokens of a suffix.
"""

from __future__ import annotations

from typing import Any

import torch

from constitutional_ai.engine.attention import KeysValues, attend, attend_prefix, by_key_head
from constitutional_ai.engine.attention_mask import AttentionMask
from constitutional_ai.engine.cpu.kernels import Kernels, Packed, Rotation


class DecoderAttention:
    """Attention of all layers, which differ in their keys and values only."""

    def __init__(self, key_heads: int, scaling: float, dtype: torch.dtype, kernels: Kernels | None) -> None:
        self._key_heads, self._scaling, self._dtype, self._kernels = key_heads, scaling, dtype, kernels
        self._tiles = kernels if kernels and kernels.has_tiles else None
        self._packed: tuple[KeysValues | None, list[Packed]] = None, []

    def prepare_mask(self, mask: torch.Tensor | AttentionMask) -> torch.Tensor | AttentionMask | None:
        """Return the mask that calls need: an additive one, unless tiles skip what is masked, padding included."""
        if self._tiles or not isinstance(mask, AttentionMask):
            return mask
        return mask.additive(torch.device("cpu"), self._dtype)

    def __call__(
        self,
        heads_NXD: torch.Tensor,
        rotation: Rotation,
        mask: torch.Tensor | AttentionMask | None,
        cache: Any | None,
        layer: int,
        prefix: KeysValues | None,
        keep: int,
        B: int,
    ) -> torch.Tensor:
        """Return attention (M, H, D) of the last ``keep`` tokens of each sequence."""
        layer_prefix = self._layer_prefix(prefix, layer)
        if self._tiles and isinstance(mask, AttentionMask):
            keys, values = cache.attended(layer) if cache is not None else self._room(heads_NXD, mask)
            return self._tiles.attend_prefill(
                heads_NXD, rotation, keys, values, mask, layer_prefix, self._scaling, keep
            )
        assert not isinstance(mask, AttentionMask)
        heads_BTXD, cosine, sine = (x.view(B, -1, *x.shape[1:]) for x in (heads_NXD, *rotation))
        return self._attend_padded(heads_BTXD, (cosine, sine), mask, cache, layer, layer_prefix, keep).flatten(
            0, 1
        )

    def _room(self, heads_NXD: torch.Tensor, mask: AttentionMask) -> tuple[torch.Tensor, torch.Tensor]:
        """Return memory for keys and values that nobody needs afterwards."""
        room = heads_NXD.new_empty(2, len(mask.known), self._key_heads, mask.width, heads_NXD.shape[-1])
        return room[0], room[1]

    def _attend_padded(
        self,
        heads_BTXD: torch.Tensor,
        rotation: Rotation,
        mask: torch.Tensor | None,
        cache: Any | None,
        layer: int,
        prefix: Any | None,
        keep: int,
    ) -> torch.Tensor:
        """Return (B, ``keep``, H, D), of tokens in columns: a decode step, or a prefill without tiles."""
        decoding = cache is not None and cache.first is not None
        if self._tiles and cache is not None and decoding:
            keys, values = cache.layer(layer)
            if self._tiles.can_attend_decode(heads_BTXD, keys):
                places = (keys, values, cache.first, cache.column)
                return self._tiles.attend_decode(heads_BTXD, rotation, *places, prefix, self._scaling)
        query, key, value = self._rotate(heads_BTXD, rotation, cache, layer)
        if keep < heads_BTXD.shape[1]:
            query = query[..., heads_BTXD.shape[1] - keep :, :].contiguous()
            mask = _causal(keep, key) if mask is None else mask[:, :, mask.shape[2] - keep :]
        if keep == 0:
            return heads_BTXD[:, :0, : -2 * self._key_heads]
        to_prefix = self._tiles.attend_prefix if self._tiles else attend_prefix
        attended = to_prefix(query, prefix, self._scaling) if prefix else None
        if self._kernels and cache is not None and decoding:
            own = self._kernels.attend_suffix(query, key, value, cache.first, cache.column, self._scaling)
            return self._kernels.join(own, attended)
        assert not self._tiles  # a mask would not make numbers of what was never written
        return attend(query, key, value, mask, self._scaling, attended)

    def _layer_prefix(self, prefix: KeysValues | None, layer: int) -> Any | None:
        """Return the prefix of one layer, packed for tiles. Packed once for all that a batch computes."""
        if prefix is None or not self._tiles:
            return prefix[layer] if prefix else None
        if self._packed[0] is not prefix:
            self._packed = prefix, [self._tiles.pack(*of_layer) for of_layer in prefix]
        return self._packed[1][layer]

    def _rotate(
        self, heads: torch.Tensor, rotation: Rotation, cache: Any | None, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rotated new queries (K, B, G, T, D), and all keys and values that they meet (B, K, L, D)."""
        B, T, X, D = heads.shape
        H = X - 2 * self._key_heads
        if self._kernels and cache is not None:
            keys, values = cache.layer(layer)
            query = self._kernels.apply_rotary(heads, rotation, keys, values, cache.column)
            return query, *((keys, values) if cache.first is not None else cache.attended(layer))
        if self._kernels:
            key, value = heads.new_empty(2, B, self._key_heads, T, D)
            return self._kernels.apply_rotary(heads, rotation, key, value, 0), key, value
        rotated = apply_rotary(heads[:, :, : H + self._key_heads], *rotation).transpose(1, 2)
        key, value = rotated[:, H:], heads[:, :, H + self._key_heads :].transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, layer)
        return by_key_head(rotated[:, :H], self._key_heads), key, value


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
