"""Settings of the whole process that make inference on a processor faster. Only the command line applies them.

glibc gives large blocks back as soon as they are freed and gets them anew, page by page, in every layer; and with pages
of 4 KB the products of a small model wait for the addresses of its weights longer than they compute. So freed memory is
kept, and the heap lies in huge pages (Linux with glibc only). This module loads no torch.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8  # malloc.h
HUGEPAGE, HUGE_SIZE = 14, 2**21  # sys/mman.h; bytes of a huge page
GROWTH = 2**30
"""Bytes of addresses that the heap grows by, so that they are huge before they are used; no memory is taken before."""


def tune_process() -> None:
    """Set how long OpenMP threads spin and how memory is allocated. Call it before torch is loaded.

    libgomp reads ``GOMP_SPINCOUNT`` when torch loads it. Left alone, a thread that waits for another spins for
    milliseconds: where another program had the core that the other needed, 32 tokens took 71 s rather than 8. A value
    from the user stays.
    """
    global _heap
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "16000")
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if _heap is None and libc is not None and hasattr(libc, "gnu_get_libc_version"):
        _heap = _Heap(libc)


def advise_huge_pages() -> None:
    """Ask for huge pages for what the heap grew by. Does nothing unless the process is tuned. Cheap."""
    if _heap is not None:
        _heap.advise()


class _Heap:
    """The heap of this process."""

    def __init__(self, libc: Any) -> None:
        self._libc = libc
        libc.sbrk.argtypes, libc.sbrk.restype = [ctypes.c_ssize_t], ctypes.c_size_t
        libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
        libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        for setting, value in (
            (MMAP_THRESHOLD, 2**30),  # larger blocks come from elsewhere, and go back there
            (TRIM_THRESHOLD, 2**31 - 1),
            (ARENA_MAX, 1),
            (TOP_PAD, GROWTH),
        ):
            libc.mallopt(setting, value)
        self._advised_to = self._end()
        libc.free(libc.malloc(HUGE_SIZE))  # it grows

    def _end(self) -> int:
        """Return the address at which the heap ends, down to a whole huge page."""
        return int(self._libc.sbrk(0)) // HUGE_SIZE * HUGE_SIZE

    def advise(self) -> None:
        end = self._end()
        if end > self._advised_to:
            self._libc.madvise(self._advised_to, end - self._advised_to, HUGEPAGE)
            self._advised_to = end


_heap: _Heap | None = None
