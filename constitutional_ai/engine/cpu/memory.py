"""Memory for tensors on a processor: what is freed is kept, and it lies in huge pages. Linux with glibc only.

glibc gives large pieces back as soon as they are freed and gets them anew, page by page, in every layer. And in pages
of 4 KB the products of a small model wait for the addresses of its weights longer than they compute.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import torch

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8  # malloc.h
HUGEPAGE, SIZE = 14, 2**21  # sys/mman.h; bytes of a huge page
GROWS_BY = 2**30
"""Bytes of addresses that the heap grows by, so that they are huge before they are used. None is taken until then."""
PIECE, LINE = 2**26, 64
"""Bytes that an arena grows by, at least, and that what it gives begins at."""


@cache
def _heap() -> Heap | None:
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return Heap(libc) if libc is not None and hasattr(libc, "gnu_get_libc_version") else None


class Heap:
    """Of this process: one for all threads."""

    def __init__(self, libc: Any) -> None:
        self._libc = libc
        libc.sbrk.argtypes, libc.sbrk.restype = [ctypes.c_ssize_t], ctypes.c_size_t
        libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
        libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        for setting, value in (
            (MMAP_THRESHOLD, 2**30),  # larger pieces come from elsewhere, and go back there
            (TRIM_THRESHOLD, 2**31 - 1),
            (ARENA_MAX, 1),
            (TOP_PAD, GROWS_BY),
        ):
            libc.mallopt(setting, value)
        self._huge_to = self._end()
        libc.free(libc.malloc(SIZE))  # it grows

    def _end(self) -> int:
        """Of the heap, down to a whole huge page."""
        return int(self._libc.sbrk(0)) // SIZE * SIZE

    def grown(self) -> None:
        """What it grew by since may be huge pages. Cheap where it did not grow."""
        end = self._end()
        if end > self._huge_to:
            self._libc.madvise(self._huge_to, end - self._huge_to, HUGEPAGE)
            self._huge_to = end


def huge_pages() -> None:
    """To be called before much memory is used, and now and then while it is."""
    if heap := _heap():
        heap.grown()


class Arena:
    """Memory for what stays, in huge pages and apart from the heap, where what is freed in between leaves holes.

    glibc often finds no room for an aligned tensor where one of its size was freed: weights of 1.5 GB took 2.5.
    """

    def __init__(self) -> None:
        self._left = torch.empty(0, dtype=torch.int8)

    def take(self, size: int) -> torch.Tensor:
        """So many bytes, as int8: zeros."""
        size = -(-size // LINE) * LINE
        if size > len(self._left):
            private = (
                mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )  # shared memory, the default, is seldom in huge pages
            piece = mmap.mmap(-1, max(size, PIECE), flags=private)
            piece.madvise(mmap.MADV_HUGEPAGE)
            self._left = torch.frombuffer(piece, dtype=torch.int8)
        taken, self._left = self._left[:size], self._left[size:]
        return taken
