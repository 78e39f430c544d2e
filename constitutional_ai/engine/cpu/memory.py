"""Memory for weights that stay, in huge pages and apart from the heap, where blocks freed in between leave holes."""

from __future__ import annotations

import mmap

import torch

BLOCK, LINE = 2**26, 64
"""Bytes that an arena grows by, at least, and that its tensors are aligned to."""


class Arena:
    """Gives memory that is never given back.

    glibc often finds no room for an aligned tensor where one of its size was freed: weights of 1.5 GB took 2.5.
    """

    def __init__(self) -> None:
        self._left = torch.empty(0, dtype=torch.int8)

    def take(self, size: int) -> torch.Tensor:
        """Return so many bytes, as int8: zeros."""
        size = -(-size // LINE) * LINE
        if size > len(self._left):
            # Shared memory, the default, is seldom in huge pages.
            block = mmap.mmap(-1, max(size, BLOCK), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            block.madvise(mmap.MADV_HUGEPAGE)
            self._left = torch.frombuffer(block, dtype=torch.int8)
        taken, self._left = self._left[:size], self._left[size:]
        return taken
