"""The processor's threads, for one of this process's threads at a time.

Every thread that computes with torch gets a pool of OpenMP threads, and keeps it. Once there are more of these than
processors, libgomp puts the idle to sleep at once, and to wake one takes longer than most of the products and sums of a
small model: on 2 cores each operation took 85 microseconds more, a token of 64 sequences 180 milliseconds rather than
124.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SOFT = 1  # omp_pause_soft: the pool ends, OpenMP's settings stay (OpenMP 5.0, omp_pause_resource_all)

_alone = threading.Lock()


@contextmanager
def all_threads() -> Iterator[None]:
    """Wait until no other thread computes in here; leave no pool behind."""
    with _alone:
        try:
            yield
        finally:
            release_threads()


def release_threads() -> None:
    """End the pool of the calling thread, which gets a new one when it needs one: 0.2 ms."""
    if sys.platform == "linux":  # torch brings libgomp there, for all to see
        pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
        if pause:
            pause(SOFT)
