"""What lies between a decoder's matrix products, compiled from ``fused.c`` on the machine that runs it.

torch does each sum and each activation in a pass of its own over memory, in the processor's time rather more than the
products themselves. Needs gcc, which shares torch's threads; where there is none, torch does it.

Axes: B rows, T new tokens of each, H = K x G query heads that share K key heads, D size of a head, C columns.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from cai.models.bundled import cache_folder

SOURCE = Path(__file__).with_suffix(".c")
COMPILE = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp", "-fPIC", "-c"]
# A link with -ffast-math would make the whole process take the smallest numbers for 0.
LINK = ["-shared", "-fopenmp", "-lm"]
NUMBERS = {torch.bfloat16: [], torch.float32: ["-DFLOAT32"]}
STEP = 32
"""The size of a head is a multiple of it."""


class Fused:
    """Results are new tensors; what is read must be contiguous, but for keys and values."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, long, single = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
        library.norm.argtypes = [*[pointer] * 3, single, *[long] * 2]
        library.turn.argtypes = [*[pointer] * 8, *[long] * 5]
        library.attend.argtypes = [*[pointer] * 10, single, *[long] * 6]
        self.has_tiles = bool(library.has_tiles())
        """Whether the processor multiplies tiles of bfloat16 (AMX)."""
        if self.has_tiles:
            library.pack.argtypes = [*[pointer] * 5, *[long] * 3]
            library.attend_far.argtypes = [*[pointer] * 5, single, *[long] * 4]
        self._library = library

    def norm(self, x: torch.Tensor, weight_E: torch.Tensor, epsilon: float) -> torch.Tensor:
        """``x`` (…, E)."""
        out, size = torch.empty_like(x), len(weight_E)
        self._library.norm(_at(x), _at(weight_E), _at(out), epsilon, x.numel() // size, size)
        return out

    def turn(
        self,
        heads_BTXD: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
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
        self._library.turn(
            *map(_at, (heads_BTXD, *rotation, query_KBGTD, keys_BKCD, values_BKCD, columns_B)),
            _strides(keys_BKCD, 0, 1, 2),
            *(B, T, K, X // K - 2, D),
        )
        return query_KBGTD

    def attend(
        self,
        query_KBGTD: torch.Tensor,
        keys_BKCD: torch.Tensor,
        values_BKCD: torch.Tensor,
        first_B: torch.Tensor,
        columns_B: torch.Tensor,
        far: tuple[torch.Tensor, torch.Tensor] | None,
        scaling: float,
    ) -> torch.Tensor:
        """Attention (B, T, H, D) of a few tokens to their row's own columns, ``first_B`` to their own one.

        ``far`` is attention (K, B x G x T, D) to what all rows begin with, and the log of its sums (K, B x G x T).
        """
        K, B, G, T, D = query_KBGTD.shape
        out = query_KBGTD.new_empty(B, T, K * G, D)
        begun = (_at(far[0]), _at(far[1]), _strides(far[0], 0, 1, far[1])) if far else (None,) * 3
        self._library.attend(
            *map(_at, (query_KBGTD, keys_BKCD, values_BKCD, first_B, columns_B)),
            _strides(keys_BKCD, 0, 1, 2),
            *(*begun, _at(out), scaling, keys_BKCD.shape[2], B, T, K, G, D),
        )
        return out

    def pack(self, key_1KPD: torch.Tensor, value_1KPD: torch.Tensor) -> Packed:
        """What all rows begin with, laid out as tiles."""
        _, K, P, D = key_1KPD.shape
        keys, values = key_1KPD.new_empty(2, K, -(-P // 32) * 32, D)
        strides = _strides(key_1KPD, 1, 2)
        self._library.pack(*map(_at, (key_1KPD, value_1KPD)), strides, _at(keys), _at(values), K, P, D)
        return Packed(keys, values, P)

    def attend_far(
        self, query_KBGTD: torch.Tensor, begun: Packed, scaling: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``attention.attend_far``."""
        query_KND = query_KBGTD.flatten(1, 3).contiguous()
        K, N, D = query_KND.shape
        out, sums = torch.empty_like(query_KND), torch.empty(K, N)
        tensors = (query_KND, begun.keys, begun.values, out, sums)
        self._library.attend_far(*map(_at, tensors), scaling, K, N, begun.length, D)
        return out, sums


class Packed(NamedTuple):
    """Keys and values of one layer."""

    keys: torch.Tensor
    values: torch.Tensor
    length: int
    """Tokens, without those that fill up the last tile."""


def _at(tensor: torch.Tensor) -> int:
    return tensor.data_ptr()


def _strides(tensor: torch.Tensor, *axes: int | torch.Tensor) -> ctypes.Array[ctypes.c_int64]:
    """Of the axes named, and then of all axes of another tensor."""
    of = [n for axis in axes for n in ([tensor.stride(axis)] if isinstance(axis, int) else axis.stride())]
    return (ctypes.c_int64 * len(of))(*of)


@cache
def fused(dtype: torch.dtype) -> Fused | None:
    """None where gcc is missing, or cannot compile it."""
    compiler = shutil.which("gcc")
    if compiler is None or dtype not in NUMBERS:
        return None
    try:
        return Fused(ctypes.CDLL(str(_library(compiler, NUMBERS[dtype]))))
    except (OSError, subprocess.SubprocessError):
        return None


def _library(compiler: str, flags: list[str]) -> Path:
    """Compiled once for each source, compiler and processor: a home may be shared by several machines."""
    known = [_said_by([compiler, "-march=native", "-Q", "--help=target"]), _said_by([compiler, "--version"])]
    digest = hashlib.sha256("".join([SOURCE.read_text("utf-8"), *known, *COMPILE, *flags]).encode())
    path = cache_folder() / f"fused-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made, linked = Path(folder) / "fused.o", Path(folder) / "fused.so"
            _said_by([compiler, *COMPILE, *flags, str(SOURCE), "-o", str(made)])
            _said_by([compiler, str(made), *LINK, "-o", str(linked)])
            os.replace(linked, path)
    return path


def _said_by(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
