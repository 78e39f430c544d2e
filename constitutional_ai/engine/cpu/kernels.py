"""The CPU kernels: what lies between a decoder's matrix products, and such products as oneDNN's are slower than.

torch does each sum and each activation in a pass of its own over memory.

Axes: B sequences, T new tokens of each, N tokens of all, M of these whose results are wanted, H = K x G query heads
that share K key heads, D size of a head, C columns of the KV cache, L columns that are attended to, P tokens of the
prefix.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch

from constitutional_ai.engine.attention_mask import AttentionMask

HEAD_MULTIPLE = 32
"""The size of a head is a multiple of it; so are the sizes of weights that ``product`` multiplies."""
LANES = 16
"""Queries of one sequence that share a key head in a decode step, at most."""
BLOCK = 64
"""Packed tokens are padded to a multiple of it."""

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of positions (…, D)."""

Attended = tuple[torch.Tensor, torch.Tensor]
"""Attention (K, B, G, T, D), and the log of the sum of its exponentials (K, B, G, T) in float32."""


class Packed(NamedTuple):
    """Keys and values of one layer (B, K, L, D), packed into AMX tiles."""

    keys: torch.Tensor
    values: torch.Tensor
    length: int
    """L without the padding of the last block."""


class Weights8(NamedTuple):
    """Weights in 8 bits as ``int8.pack`` lays them, padded to whole blocks."""

    blocks: torch.Tensor
    scales: torch.Tensor
    """(F), in float32."""
    sums: torch.Tensor
    """(F), of each feature's whole numbers."""


class Kernels:
    """The functions of a compiled library.

    Results are new tensors. Arguments must be contiguous, but for keys and values.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, long, single = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
        library.rms_norm.argtypes = [*[pointer] * 3, single, *[long] * 2]
        library.apply_rotary.argtypes = [*[pointer] * 7, *[long] * 6]
        library.attend_suffix.argtypes = [*[pointer] * 8, single, *[long] * 5]
        library.sample.argtypes = [*[pointer] * 3, single, *[long] * 2]
        self.has_tiles = bool(library.has_tiles())
        """Whether the processor multiplies tiles of bfloat16 (AMX), for the functions that need them."""
        self.supports_int8 = bool(library.supports_int8())
        """Whether ``product_int8`` runs: on AVX-512 VNNI, or on AMX tiles if the system allows these."""
        self.panel: int = library.panel_features()
        """Features of a panel, as ``product`` reads weights in float32 on AVX2 and AVX-512; 0 where it reads none."""
        if self.panel:
            library.product32.argtypes = [*[pointer] * 6, *[long] * 3]
        if self.supports_int8:
            library.product_int8.argtypes = [*[pointer] * 11, single, *[long] * 3]
        if self.has_tiles:
            library.pack.argtypes = [*[pointer] * 5, *[long] * 4]
            library.attend_prefill.argtypes = [*[pointer] * 13, single, *[long] * 8]
            library.attend_decode.argtypes = [*[pointer] * 11, single, *[long] * 7]
            library.product.argtypes = [*[pointer] * 7, single, *[long] * 3]
        self._library = library

    def rms_norm(self, x: torch.Tensor, weight_E: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Return ``x`` (…, E), brought to a mean square of 1 and multiplied by the weights."""
        out, size = torch.empty_like(x), len(weight_E)
        self._library.rms_norm(*_pointers(x, weight_E, out), epsilon, x.numel() // size, size)
        return out

    def apply_rotary(
        self,
        heads_BTXD: torch.Tensor,
        rotation: Rotation,
        keys_BKCD: torch.Tensor,
        values_BKCD: torch.Tensor,
        column: int,
    ) -> torch.Tensor:
        """Return the rotated queries (K, B, G, T, D); write rotated keys, and values, from ``column`` on.

        ``heads_BTXD`` are H queries, K keys and K values; ``rotation`` cosines and sines (B, T, D).
        """
        B, T, X, D = heads_BTXD.shape
        K = keys_BKCD.shape[1]
        query_KBGTD = heads_BTXD.new_empty(K, B, X // K - 2, T, D)
        pointers = _pointers(heads_BTXD, *rotation, query_KBGTD, keys_BKCD, values_BKCD)
        self._library.apply_rotary(*pointers, _strides(keys_BKCD, 3), column, B, T, K, X // K - 2, D)
        return query_KBGTD

    def attend_suffix(
        self,
        query_KBG1D: torch.Tensor,
        keys_BKCD: torch.Tensor,
        values_BKCD: torch.Tensor,
        known_B: torch.Tensor,
        column: int,
        prefix: Attended | None,
        scaling: float,
    ) -> torch.Tensor:
        """Return attention (B, 1, H, D) of one token of each sequence, joined with that to the ``prefix``.

        It is in ``column``, and attends to that one and to the ``known_B`` columns before it.
        """
        K, B, G, _, D = query_KBG1D.shape
        out = query_KBG1D.new_empty(B, 1, K * G, D)
        held = [x.contiguous() for x in prefix] if prefix else [None, None]  # until it is read
        pointers = (
            *_pointers(query_KBG1D, keys_BKCD, values_BKCD, known_B),
            _strides(keys_BKCD, 3),
            *_pointers(*held, out),
        )
        self._library.attend_suffix(*pointers, scaling, column, B, K, G, D)
        return out

    def pack(self, key_BKLD: torch.Tensor, value_BKLD: torch.Tensor) -> Packed:
        """Pack keys and values into tiles, for ``attend_prefill`` and ``attend_decode``."""
        B, K, L, D = key_BKLD.shape
        keys, values = key_BKLD.new_empty(2, B, K, _padded_length(L), D)
        strides = _strides(key_BKLD, 3)
        self._library.pack(*_pointers(key_BKLD, value_BKLD), strides, *_pointers(keys, values), B, K, L, D)
        return Packed(keys, values, L)

    def attend_prefill(
        self,
        heads_NXD: torch.Tensor,
        rotation: Rotation,
        keys_BKLD: torch.Tensor,
        values_BKLD: torch.Tensor,
        mask: AttentionMask,
        prefix: Packed | None,
        scaling: float,
        keep: int,
    ) -> torch.Tensor:
        """Return ``apply_rotary`` and attention (M, H, D) of the last ``keep`` tokens of each sequence.

        The N tokens of sequences lie one behind the other, without padding, and ``rotation`` as they do. The last T
        columns of keys and values are written.
        """
        (N, X, D), (B, K, L, _) = heads_NXD.shape, keys_BKLD.shape
        M = N if keep == mask.width else int(mask.present(keep).sum())
        out, room = heads_NXD.new_empty(M, X - 2 * K, D), heads_NXD.new_empty(2, B, K, _padded_length(L), D)
        pointers = (
            *_pointers(heads_NXD, *rotation, keys_BKLD, values_BKLD),
            _strides(keys_BKLD, 3),
            *_pointers(mask.padding, mask.known_lengths),
            None if mask.is_causal else mask.segment_ids.data_ptr(),
            *_prefix_pointers(prefix),
            *_pointers(room, out),
        )
        sizes = (B, mask.width, keep, K, X // K - 2, L, prefix.length if prefix else 0, D)
        self._library.attend_prefill(*pointers, scaling, *sizes)
        return out

    def attend_decode(
        self,
        heads_BXD: torch.Tensor,
        rotation: Rotation,
        keys_BKCD: torch.Tensor,
        values_BKCD: torch.Tensor,
        known_B: torch.Tensor,
        column: int,
        prefix: Packed | None,
        scaling: float,
    ) -> torch.Tensor:
        """Return (B, H, D): rotation, attention to suffix and prefix, and their join, all in one pass.

        Only for heads that ``can_attend_decode``.
        """
        B, X, D = heads_BXD.shape
        K, C = keys_BKCD.shape[1:3]
        G = X // K - 2
        query_KBGD, out_BHD = heads_BXD.new_empty(K, B, G, D), heads_BXD.new_empty(B, K * G, D)
        pointers = (
            *_pointers(heads_BXD, *rotation, keys_BKCD, values_BKCD, known_B),
            _strides(keys_BKCD, 3),
            *_prefix_pointers(prefix),
            *_pointers(query_KBGD, out_BHD),
        )
        sizes = (column, C, B, K, G, prefix.length if prefix else 0, D)
        self._library.attend_decode(*pointers, scaling, *sizes)
        return out_BHD

    def can_attend_decode(self, heads_BXD: torch.Tensor, keys_BKCD: torch.Tensor) -> bool:
        """Return whether ``attend_decode`` takes heads and a KV cache of these sizes."""
        _, X, D = heads_BXD.shape
        K, C = keys_BKCD.shape[1:3]
        return X // K - 2 <= LANES <= C and D in (64, 128)

    def product(
        self,
        x_NE: torch.Tensor,
        weights: int | Weights8,
        features: int,
        bias_F: torch.Tensor | None = None,
        other_NF: torch.Tensor | None = None,
        *,
        gate: int | Weights8 | None = None,
        norm: tuple[torch.Tensor, float] | None = None,
    ) -> torch.Tensor:
        """Return ``norm(x) @ W.T + bias + other`` (N, F), or times SiLU of the product with ``gate``.

        ``weights`` and ``gate`` are in 8 bits, or addresses from ``blocks_of``; ``norm`` the weights (E) and epsilon of
        an RMS norm.
        """
        panels = self.panel and not isinstance(weights, Weights8)
        if panels:
            x_NE, norm = self.rms_norm(x_NE, *norm) if norm else x_NE, None
        (N, E), out = x_NE.shape, x_NE.new_empty(len(x_NE), features)
        assert x_NE.is_contiguous() and (other_NF is None or other_NF.is_contiguous())
        assert gate is None or (bias_F is None and other_NF is None)
        weight_E, epsilon = norm or (None, 0.0)
        x_norm, added_out = _pointers(x_NE, weight_E), _pointers(bias_F, other_NF, out)
        if panels:
            self._library.product32(x_NE.data_ptr(), weights, gate, *added_out, N, E, features)
        elif isinstance(weights, Weights8):
            assert E < 2**16  # else sums would not fit into 32 bits
            gates = gate if isinstance(gate, Weights8) else [None] * 3
            of_weights = _pointers(*weights, *gates)
            self._library.product_int8(*x_norm, *of_weights, *added_out, epsilon, N, E, features)
        else:
            self._library.product(*x_norm, weights, gate, *added_out, epsilon, N, E, features)
        return out

    def blocks_of(self, weight_FE: torch.Tensor, packed: torch.Tensor) -> int | None:
        """Return the address of oneDNN's ``packed`` weights if they lie in the blocks that ``product`` reads."""
        blocks = self._blocks(weight_FE)
        onednn = torch.ops.mkldnn
        if blocks is None or onednn._nbytes(packed) != blocks.nbytes:
            return None
        address: int = onednn.data_ptr(packed)
        laid = torch.frombuffer((ctypes.c_char * blocks.nbytes).from_address(address), dtype=weight_FE.dtype)
        return address if torch.equal(laid.view(blocks.shape), blocks) else None

    def _blocks(self, weight_FE: torch.Tensor) -> torch.Tensor | None:
        """Return weights as ``product`` reads them: in panels (panels, E, features) or tiles; None if it cannot."""
        (F, E), step = weight_FE.shape, HEAD_MULTIPLE
        if self.panel:
            whole_FE = torch.nn.functional.pad(weight_FE, (0, 0, 0, -F % self.panel))
            return whole_FE.view(-1, self.panel, E).transpose(1, 2)
        if not self.has_tiles or F % step or E % step:
            return None
        return weight_FE.view(F // step, step, E // step, step // 2, 2).permute(0, 2, 3, 1, 4)

    def sample(self, logits_BV: torch.Tensor, uniform_B: torch.Tensor, temperature: float) -> torch.Tensor:
        """Return the first token (B,) up to which the probabilities sum to more than ``uniform_B``, in [0, 1)."""
        tokens, (B, V) = torch.empty(len(logits_BV), dtype=torch.int64), logits_BV.shape
        self._library.sample(*_pointers(logits_BV, uniform_B, tokens), temperature, B, V)
        return tokens


def _padded_length(tokens: int) -> int:
    return -(-tokens // BLOCK) * BLOCK


def _prefix_pointers(prefix: Packed | None) -> list[int | None]:
    return _pointers(prefix.keys, prefix.values) if prefix else [None, None]


def _pointers(*tensors: torch.Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _strides(tensor: torch.Tensor, axes: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * axes)(*tensor.stride()[:axes])
