"""What lies between a decoder's matrix products, compiled from ``kernels`` on the machine that runs it.

torch does each sum and each activation in a pass of its own over memory. Needs Linux, and gcc, which shares torch's
threads; elsewhere torch does it.

Axes: B rows, T new tokens of each, N of all rows, M of these that are asked for, H = K x G query heads that share K key
heads, D size of a head, C columns, L of them that are seen.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from constitutional_ai import machine
from constitutional_ai.engine.seen import Seen

LOG = logging.getLogger(__name__)
KERNELS = Path(__file__).parent / "kernels_c"
COMPILE = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp", "-fPIC", "-c"]
# A link with -ffast-math would make the whole process take the smallest numbers for 0.
LINK = ["-shared", "-fopenmp", "-lm"]
NUMBERS = {torch.bfloat16: [], torch.float32: ["-DFLOAT32"]}
WHOLE = 32
"""The size of a head is a multiple of it."""
LANES = 16
"""Queries that share a key head in a step, at most."""
BLOCK = 64
"""Tokens that are packed are filled up to a multiple of it."""

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of positions (…, D)."""

Attended = tuple[torch.Tensor, torch.Tensor]
"""Attention (K, B, G, T, D), and the log of the sum of its exponentials (K, B, G, T) in float32."""


class Packed(NamedTuple):
    """Keys and values of one layer (B, K, L, D), laid out as tiles."""

    keys: torch.Tensor
    values: torch.Tensor
    length: int
    """L without what fills up the last block."""


class Weights8(NamedTuple):
    """As ``laid_out`` of int8.py leaves them, filled up to whole blocks."""

    blocks: torch.Tensor
    scales: torch.Tensor
    """(F), in float32."""
    sums: torch.Tensor
    """(F), of each feature's whole numbers."""


class Fused:
    """Results are new tensors. What is read must be contiguous, but for keys and values."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, long, single = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
        library.norm.argtypes = [*[pointer] * 3, single, *[long] * 2]
        library.turn.argtypes = [*[pointer] * 8, *[long] * 5]
        library.attend_few.argtypes = [*[pointer] * 8, single, *[long] * 6]
        library.join.argtypes = [*[pointer] * 5, *[long] * 5]
        library.draw.argtypes = [*[pointer] * 3, single, *[long] * 2]
        library.product_int8.argtypes = [*[pointer] * 11, single, *[long] * 3]
        self.has_tiles = bool(library.has_tiles())
        """Whether the processor multiplies tiles of bfloat16 (AMX): for what of this asks for it."""
        self.takes_int8 = bool(library.takes_int8())
        """Whether ``product8`` runs: not where the kernels would multiply tiles, and the system forbids it."""
        if self.has_tiles:
            library.pack.argtypes = [*[pointer] * 5, *[long] * 4]
            library.attend_far.argtypes = [*[pointer] * 5, single, *[long] * 4]
            library.attend_rows.argtypes = [*[pointer] * 13, single, *[long] * 8]
            library.attend_step.argtypes = [*[pointer] * 12, single, *[long] * 7]
            library.product.argtypes = [*[pointer] * 7, single, *[long] * 3]
        self._library = library

    def norm(self, x: torch.Tensor, weight_E: torch.Tensor, epsilon: float) -> torch.Tensor:
        """``x`` (…, E)."""
        out, size = torch.empty_like(x), len(weight_E)
        self._library.norm(*_at(x, weight_E, out), epsilon, x.numel() // size, size)
        return out

    def turn(
        self,
        heads_BTXD: torch.Tensor,
        rotation: Rotation,
        keys_BKCD: torch.Tensor,
        values_BKCD: torch.Tensor,
        columns_B: torch.Tensor,
    ) -> torch.Tensor:
        """Queries (K, B, G, T, D), turned by their positions. Keys too; these and values are written into columns.

        ``heads_BTXD`` are H queries, K keys and K values; ``rotation`` cosines and sines (B, T, D). Row b writes its T
        columns from ``columns_B`` on.
        """
        B, T, X, D = heads_BTXD.shape
        K = keys_BKCD.shape[1]
        query_KBGTD = heads_BTXD.new_empty(K, B, X // K - 2, T, D)
        tensors = _at(heads_BTXD, *rotation, query_KBGTD, keys_BKCD, values_BKCD, columns_B)
        self._library.turn(*tensors, _strides(keys_BKCD, 3), B, T, K, X // K - 2, D)
        return query_KBGTD

    def attend_few(
        self,
        query_KBGTD: torch.Tensor,
        keys_BKCD: torch.Tensor,
        values_BKCD: torch.Tensor,
        first_B: torch.Tensor,
        columns_B: torch.Tensor,
        scaling: float,
    ) -> Attended:
        """A few tokens look at columns of their row, from ``first_B`` to their own, which begin at ``columns_B``."""
        K, B, G, T, D = query_KBGTD.shape
        out, sums = _attended(query_KBGTD)
        tensors = _at(query_KBGTD, keys_BKCD, values_BKCD, first_B, columns_B)
        sizes = (keys_BKCD.shape[2], B, T, K, G, D)
        self._library.attend_few(*tensors, _strides(keys_BKCD, 3), *_at(out, sums), scaling, *sizes)
        return out, sums

    def pack(self, key_BKLD: torch.Tensor, value_BKLD: torch.Tensor) -> Packed:
        """As ``attend_far`` and others read it."""
        B, K, L, D = key_BKLD.shape
        keys, values = key_BKLD.new_empty(2, B, K, _whole(L), D)
        strides = _strides(key_BKLD, 3)
        self._library.pack(*_at(key_BKLD, value_BKLD), strides, *_at(keys, values), B, K, L, D)
        return Packed(keys, values, L)

    def attend_far(self, query_KBGTD: torch.Tensor, begun: Packed, scaling: float) -> Attended:
        """All tokens look at all of what all rows begin with."""
        K, B, G, T, D = query_KBGTD.shape
        out, sums = _attended(query_KBGTD)
        tensors = _at(query_KBGTD, begun.keys, begun.values, out, sums)
        self._library.attend_far(*tensors, scaling, K, B * G * T, begun.length, D)
        return out, sums

    def attend_rows(
        self,
        heads_NXD: torch.Tensor,
        rotation: Rotation,
        keys_BKLD: torch.Tensor,
        values_BKLD: torch.Tensor,
        seen: Seen,
        begun: Packed | None,
        scaling: float,
        keep: int,
    ) -> torch.Tensor:
        """(M, H, D), of the last ``keep`` tokens of each row, or of all it has: ``turn``, and attention.

        The N tokens of rows lie one row's behind the other's, without padding, and ``rotation`` as they do. The last T
        of keys and values are written.
        """
        (N, X, D), (B, K, L, _) = heads_NXD.shape, keys_BKLD.shape
        M = N if keep == seen.width else int(seen.there(keep).sum())
        out, room = heads_NXD.new_empty(M, X - 2 * K, D), heads_NXD.new_empty(2, B, K, _whole(L), D)
        pointers = (
            *_at(heads_NXD, *rotation, keys_BKLD, values_BKLD),
            _strides(keys_BKLD, 3),
            *_at(seen.padding, seen.before),
            None if seen.plain else seen.parts.data_ptr(),
            *_far(begun),
            *_at(room, out),
        )
        sizes = (B, seen.width, keep, K, X // K - 2, L, begun.length if begun else 0, D)
        self._library.attend_rows(*pointers, scaling, *sizes)
        return out

    def attend_step(
        self,
        heads_BTXD: torch.Tensor,
        rotation: Rotation,
        keys_BKCD: torch.Tensor,
        values_BKCD: torch.Tensor,
        first_B: torch.Tensor,
        columns_B: torch.Tensor,
        begun: Packed | None,
        scaling: float,
    ) -> torch.Tensor:
        """(B, T, H, D): ``turn``, ``attend_few``, ``attend_far`` and ``join`` at once. For heads that ``can_step``."""
        B, T, X, D = heads_BTXD.shape
        K, C = keys_BKCD.shape[1:3]
        G = X // K - 2
        queries_KBGTD, out_BTHD = heads_BTXD.new_empty(K, B, G, T, D), heads_BTXD.new_empty(B, T, K * G, D)
        tensors = _at(heads_BTXD, *rotation, keys_BKCD, values_BKCD, first_B, columns_B)
        sizes = (C, B, T, K, G, begun.length if begun else 0, D)
        strides = _strides(keys_BKCD, 3)
        self._library.attend_step(
            *tensors, strides, *_far(begun), *_at(queries_KBGTD, out_BTHD), scaling, *sizes
        )
        return out_BTHD

    def can_step(self, heads_BTXD: torch.Tensor, keys_BKCD: torch.Tensor) -> bool:
        _, T, X, D = heads_BTXD.shape
        K, C = keys_BKCD.shape[1:3]
        return self.has_tiles and (X // K - 2) * T <= LANES <= C and D in (64, 128)

    def product(
        self,
        x_NE: torch.Tensor,
        blocks: int,
        features: int,
        bias_F: torch.Tensor | None = None,
        other_NF: torch.Tensor | None = None,
        *,
        gate: int | None = None,
        norm: tuple[torch.Tensor, float] | None = None,
    ) -> torch.Tensor:
        """(N, F), times SiLU of the product with ``gate``. ``blocks`` and ``gate`` are addresses of ``blocks_of``.

        ``norm`` are weights (E) and epsilon of what is done to ``x_NE`` before.
        """
        (N, E), out = x_NE.shape, x_NE.new_empty(len(x_NE), features)
        assert x_NE.is_contiguous() and (other_NF is None or other_NF.is_contiguous())
        assert gate is None or (bias_F is None and other_NF is None)
        weight_E, epsilon = norm or (None, 0.0)
        given = [None if tensor is None else tensor.data_ptr() for tensor in (weight_E, bias_F, other_NF)]
        pointers = (*_at(x_NE), given[0], blocks, gate, *given[1:], *_at(out))
        self._library.product(*pointers, epsilon, N, E, features)
        return out

    def product8(
        self,
        x_NE: torch.Tensor,
        weights: Weights8,
        features: int,
        bias_F: torch.Tensor | None = None,
        other_NF: torch.Tensor | None = None,
        *,
        gate: Weights8 | None = None,
        norm: tuple[torch.Tensor, float] | None = None,
    ) -> torch.Tensor:
        """As ``product``, of weights in 8 bits."""
        (N, E), out = x_NE.shape, x_NE.new_empty(len(x_NE), features)
        assert E < 2**16  # else sums would not fit into 32 bits
        assert x_NE.is_contiguous() and (other_NF is None or other_NF.is_contiguous())
        assert gate is None or (bias_F is None and other_NF is None)
        weight_E, epsilon = norm or (None, 0.0)
        given = [None if tensor is None else tensor.data_ptr() for tensor in (weight_E, bias_F, other_NF)]
        gates = _at(*gate) if gate else [None] * 3
        pointers = (*_at(x_NE), given[0], *_at(*weights), *gates, *given[1:], *_at(out))
        self._library.product_int8(*pointers, epsilon, N, E, features)
        return out

    def blocks_of(self, weight_FE: torch.Tensor, packed: torch.Tensor) -> int | None:
        """Where oneDNN's ``packed`` weights are, if they lie there in the blocks that ``product`` reads."""
        (F, E), size = weight_FE.shape, weight_FE.nbytes
        onednn = torch.ops.mkldnn
        if not self.has_tiles or F % WHOLE or E % WHOLE or onednn._nbytes(packed) != size:
            return None
        at: int = onednn.data_ptr(packed)
        laid = torch.frombuffer((ctypes.c_char * size).from_address(at), dtype=weight_FE.dtype)
        blocks = weight_FE.view(F // WHOLE, WHOLE, E // WHOLE, WHOLE // 2, 2).permute(0, 2, 3, 1, 4)
        return at if torch.equal(laid.view(blocks.shape), blocks) else None

    def join(self, own: Attended, far: Attended | None) -> torch.Tensor:
        """(B, T, H, D), of what was seen in either place."""
        K, B, G, T, D = own[0].shape
        out = own[0].new_empty(B, T, K * G, D)
        begun = [x.contiguous() for x in far or ()]  # held until it is read
        self._library.join(*_at(*own), *(_at(*begun) or (None, None)), *_at(out), B, T, K, G, D)
        return out

    def draw(self, logits_RV: torch.Tensor, uniform_R: torch.Tensor, temperature: float) -> torch.Tensor:
        """The first token (R,) of each row up to which the probabilities sum to more than its number in [0, 1)."""
        tokens, (R, V) = torch.empty(len(logits_RV), dtype=torch.int64), logits_RV.shape
        self._library.draw(*_at(logits_RV, uniform_R, tokens), temperature, R, V)
        return tokens


def _whole(tokens: int) -> int:
    return -(-tokens // BLOCK) * BLOCK


def _far(begun: Packed | None) -> tuple[int | None, int | None]:
    return (begun.keys.data_ptr(), begun.values.data_ptr()) if begun else (None, None)


def _attended(query_KBGTD: torch.Tensor) -> Attended:
    return torch.empty_like(query_KBGTD), torch.empty(query_KBGTD.shape[:-1])


def _at(*tensors: torch.Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _strides(tensor: torch.Tensor, axes: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * axes)(*tensor.stride()[:axes])


@cache
def fused(dtype: torch.dtype) -> Fused | None:
    """None where gcc is missing, or cannot compile it."""
    if dtype not in NUMBERS or sys.platform != "linux":  # where it was tested
        return None
    compiler = shutil.which("gcc")
    if compiler is None:
        LOG.info("gcc is not installed: with it, models answer faster on this processor.")
        return None
    try:
        return Fused(ctypes.CDLL(str(_library(compiler, NUMBERS[dtype]))))
    except (OSError, subprocess.SubprocessError) as error:
        LOG.info("The kernels in %s are not used, and models answer more slowly: %s", KERNELS, error)
        return None


def _library(compiler: str, flags: list[str]) -> Path:
    """Compiled once for each source, compiler and processor: a home may be shared by several machines."""
    known = [_said_by([compiler, "-march=native", "-Q", "--help=target"]), _said_by([compiler, "--version"])]
    sources = [file.read_text("utf-8") for file in sorted(KERNELS.glob("*.[ch]"))]
    digest = hashlib.sha256("\0".join([*sources, *known, *COMPILE, *LINK, *flags]).encode())
    path = machine.cache_folder() / f"kernels-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            linked, made = Path(folder) / "kernels.so", []
            for source in sorted(KERNELS.glob("*.c")):
                made.append(str(Path(folder) / f"{source.stem}.o"))
                _said_by([compiler, *COMPILE, *flags, str(source), "-o", made[-1]])
            _said_by([compiler, *made, *LINK, "-o", str(linked)])
            linked.replace(path)  # whole or not at all
    if path.stat().st_uid not in (os.getuid(), 0):
        raise PermissionError(f"{path} belongs to somebody else")  # code, unlike all else that is kept there
    return path


def _said_by(command: list[str]) -> str:
    return subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, text=True, timeout=120
    ).stdout
