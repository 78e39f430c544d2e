"""Which kernels compute the attention of a ``decoder``: in tiles where the processor has them, else torch's.

Axes: B rows, T new tokens, N of all rows, M of these that are asked for, H query heads, K key heads, D size of a head,
L all tokens of a row's own.
"""

from __future__ import annotations

from typing import Any

import torch

from constitutional_ai.engine.attention import KeysValues, attend, attend_far, by_key_head
from constitutional_ai.engine.cpu.kernels import Fused, Packed, Rotation
from constitutional_ai.engine.seen import Seen


class DecoderAttention:
    def __init__(self, key_heads: int, scaling: float, dtype: torch.dtype, fused: Fused | None) -> None:
        self._key_heads, self._scaling, self._dtype, self._fused = key_heads, scaling, dtype, fused
        self._tiles = fused if fused and fused.has_tiles else None
        self._packed: tuple[KeysValues | None, list[Packed]] = None, []

    def how(self, seen: torch.Tensor | Seen) -> torch.Tensor | Seen | None:
        """What to call this with: a mask, unless tiles read what is seen of rows, and leave padding out."""
        if self._tiles or not isinstance(seen, Seen):
            return seen
        return seen.mask(torch.device("cpu"), self._dtype)

    def __call__(
        self,
        heads_NXD: torch.Tensor,
        rotation: Rotation,
        how: torch.Tensor | Seen | None,
        cache: Any | None,
        number: int,
        shared: KeysValues | None,
        keep: int,
        B: int,
    ) -> torch.Tensor:
        """(M, H, D), of each row's last ``keep`` tokens, in layer ``number``. X: H queries, K keys and K values."""
        begun = self._begun(shared, number)
        if self._tiles and isinstance(how, Seen):
            keys, values = cache.read(number) if cache is not None else self._room(heads_NXD, how)
            return self._tiles.attend_rows(heads_NXD, rotation, keys, values, how, begun, self._scaling, keep)
        assert not isinstance(how, Seen)
        heads_BTXD, cosine, sine = (x.view(B, -1, *x.shape[1:]) for x in (heads_NXD, *rotation))
        return self._of_columns(heads_BTXD, (cosine, sine), how, cache, number, begun, keep).flatten(0, 1)

    def _room(self, heads_NXD: torch.Tensor, seen: Seen) -> tuple[torch.Tensor, torch.Tensor]:
        """For keys and values that nobody asks for afterwards."""
        room = heads_NXD.new_empty(2, len(seen.known), self._key_heads, seen.width, heads_NXD.shape[-1])
        return room[0], room[1]

    def _of_columns(
        self,
        heads_BTXD: torch.Tensor,
        rotation: Rotation,
        mask: torch.Tensor | None,
        cache: Any | None,
        number: int,
        begun: Any | None,
        keep: int,
    ) -> torch.Tensor:
        """(B, ``keep``, H, D)."""
        if self._tiles and cache is not None and cache.first is not None:
            keys, values = cache.of_layer(number)
            if self._tiles.can_step(heads_BTXD, keys):
                of_rows = (keys, values, cache.first, cache.columns)
                return self._tiles.attend_step(heads_BTXD, rotation, *of_rows, begun, self._scaling)
        query, key, value = self._turned(heads_BTXD, rotation, cache, number)
        if keep < heads_BTXD.shape[1]:
            query = query[..., heads_BTXD.shape[1] - keep :, :].contiguous()
            mask = _before(keep, key) if mask is None else mask[:, :, mask.shape[2] - keep :]
        if keep == 0:
            return heads_BTXD[:, :0, : -2 * self._key_heads]
        look_back = self._tiles.attend_far if self._tiles else attend_far
        far = look_back(query, begun, self._scaling) if begun else None
        if self._fused and cache is not None and cache.first is not None:
            own = self._fused.attend_few(query, key, value, cache.first, cache.columns, self._scaling)
            return self._fused.join(own, far)
        assert not self._tiles  # a mask would not make numbers of what was never written
        return attend(query, key, value, mask, self._scaling, far)

    def _begun(self, shared: KeysValues | None, number: int) -> Any | None:
        """What all rows begin with. Packed once for all that a batch reads."""
        if shared is None or not self._tiles:
            return shared[number] if shared else None
        if self._packed[0] is not shared:
            self._packed = shared, [self._tiles.pack(*of_layer) for of_layer in shared]
        return self._packed[1][number]

    def _turned(
        self, heads: torch.Tensor, rotation: Rotation, cache: Any | None, number: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """New queries (K, B, G, T, D) with their positions, and all keys and values that they meet (B, K, L, D)."""
        B, T, X, D = heads.shape
        H = X - 2 * self._key_heads
        if self._fused and cache is not None:
            keys, values = cache.of_layer(number)
            query = self._fused.turn(heads, rotation, keys, values, cache.columns)
            return query, *((keys, values) if cache.first is not None else cache.read(number))
        if self._fused:
            key, value = heads.new_empty(2, B, self._key_heads, T, D)
            columns = torch.zeros(B, dtype=torch.int64)
            return self._fused.turn(heads, rotation, key, value, columns), key, value
        turned = turn(heads[:, :, : H + self._key_heads], *rotation).transpose(1, 2)
        key, value = turned[:, H:], heads[:, :, H + self._key_heads :].transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, number)
        return by_key_head(turned[:, :H], self._key_heads), key, value


def _before(last: int, key_BKLD: torch.Tensor) -> torch.Tensor:
    """The mask (1, 1, ``last``, L) of the last tokens, each of which sees all before it."""
    hidden = torch.full((last, key_BKLD.shape[2]), float("-inf"), dtype=key_BKLD.dtype)
    return hidden.triu(key_BKLD.shape[2] - last + 1)[None, None]


def turn(x: torch.Tensor, cos_BTD: torch.Tensor, sin_BTD: torch.Tensor) -> torch.Tensor:
    """Rotary positions (B, T, heads, D): the first half of a head is turned against its second."""
    cos, sin, half = cos_BTD[:, :, None], sin_BTD[:, :, None], x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
