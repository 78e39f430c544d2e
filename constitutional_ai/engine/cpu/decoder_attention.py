"""The attention of a ``Decoder``: with AMX tiles where the processor has them, else with the other kernels and torch.

Axes: B sequences, T new tokens of each, N tokens of all, M of these whose results are wanted, X = H + 2K heads: H
queries, K keys, K values; D size of a head, L tokens of a suffix.
"""

from __future__ import annotations

import torch

from constitutional_ai.engine.attention import KeysValues, attend, attend_prefix, by_key_head
from constitutional_ai.engine.attention_mask import AttentionMask
from constitutional_ai.engine.cpu.kernels import Kernels, Packed, Rotation
from constitutional_ai.engine.kv_cache import KVCache


class DecoderAttention:
    """Attention of all layers, which differ in their keys and values only."""

    def __init__(self, scaling: float, dtype: torch.dtype, kernels: Kernels | None) -> None:
        self._scaling, self._dtype, self._kernels = scaling, dtype, kernels
        self._tiles = kernels if kernels and kernels.has_tiles else None
        self._packed: tuple[KeysValues | None, list[Packed]] = None, []

    def present(self, mask: AttentionMask) -> torch.Tensor:
        """Return which tokens (B, T) are computed: without tiles, padding too."""
        return mask.present(mask.width) if self._tiles else torch.ones_like(mask.segment_ids, dtype=torch.bool)

    def additive(self, mask: AttentionMask) -> torch.Tensor | None:
        """Return what is added to scores; None too where our kernels skip what is masked."""
        skipped = self._tiles or (self._kernels and mask.width == 1)
        return None if skipped else mask.additive(torch.device("cpu"), self._dtype)

    def __call__(
        self,
        heads_NXD: torch.Tensor,
        rotation: Rotation,
        mask: AttentionMask,
        additive: torch.Tensor | None,
        cache: KVCache,
        layer: int,
        prefix: KeysValues | None,
        keep: int,
    ) -> torch.Tensor:
        """Return attention (M, H, D) of the last ``keep`` tokens of each sequence."""
        if not self._tiles:
            sizes = len(mask.known), mask.width
            heads_BTXD, *by_token = (x.view(*sizes, *x.shape[1:]) for x in (heads_NXD, *rotation))
            cosine, sine = by_token
            of_layer = prefix[layer] if prefix else None
            attended_BTHD = self._attend_padded(
                heads_BTXD, (cosine, sine), mask, additive, cache, layer, of_layer, keep
            )
            return attended_BTHD.flatten(0, 1)
        packed, (keys, values) = self._packed_prefix(prefix, layer), cache.layer(layer)
        if mask.width == 1 and self._tiles.can_attend_decode(heads_NXD, keys):
            places = keys, values, mask.known_lengths, cache.column
            return self._tiles.attend_decode(heads_NXD, rotation, *places, packed, self._scaling)
        keys, values = cache.attended(layer)
        return self._tiles.attend_prefill(heads_NXD, rotation, keys, values, mask, packed, self._scaling, keep)

    def _attend_padded(
        self,
        heads_BTXD: torch.Tensor,
        rotation: Rotation,
        mask: AttentionMask,
        additive: torch.Tensor | None,
        cache: KVCache,
        layer: int,
        prefix: tuple[torch.Tensor, torch.Tensor] | None,
        keep: int,
    ) -> torch.Tensor:
        """Return (B, ``keep``, H, D), of tokens in columns, without tiles."""
        T, (keys, values) = mask.width, cache.layer(layer)
        query = self._rotate(heads_BTXD, rotation, cache, layer)[..., T - keep :, :].contiguous()
        if keep == 0:
            return query.new_empty(len(heads_BTXD), 0, 0, 0)
        far = attend_prefix(query, prefix, self._scaling) if prefix else None
        if self._kernels and T == 1:
            places = keys, values, mask.known_lengths, cache.column
            return self._kernels.attend_suffix(query, *places, far, self._scaling)
        key, value = cache.attended(layer)
        if keep < T:
            additive = _causal(keep, key) if additive is None else additive[:, :, T - keep :]
        return attend(query, key, value, additive, self._scaling, far)

    def _packed_prefix(self, prefix: KeysValues | None, layer: int) -> Packed | None:
        """Return the prefix of one layer, packed for tiles. Packed once for all that a batch computes."""
        if prefix is None or self._tiles is None:
            return None
        if self._packed[0] is not prefix:
            self._packed = prefix, [self._tiles.pack(*of_layer) for of_layer in prefix]
        return self._packed[1][layer]

    def _rotate(self, heads: torch.Tensor, rotation: Rotation, cache: KVCache, layer: int) -> torch.Tensor:
        """Return rotated new queries (K, B, G, T, D); write the new keys and values into the cache."""
        keys, values = cache.layer(layer)
        if self._kernels:
            return self._kernels.apply_rotary(heads, rotation, keys, values, cache.column)
        K = keys.shape[1]
        rotated = apply_rotary(heads[:, :, :-K], *rotation).transpose(1, 2)
        cache.update(rotated[:, -K:], heads[:, :, -K:].transpose(1, 2), layer)
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
