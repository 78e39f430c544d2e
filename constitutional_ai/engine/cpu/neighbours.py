"""Fewer threads for a small step where other programs keep some of the processors busy.

The threads of a product wait for the last of them. Where another program has the processor that one of them needs, that
is a time slice of the scheduler: milliseconds for a product of microseconds. So a step of few tokens has no more
threads than there are free processors. Many sequences at once keep all, because their products last longer.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

FEW_TOKENS = 16
"""Tokens of a forward pass from which two threads were faster than one beside two busy programs, on two processors."""
SECONDS = 0.5
"""How often the others are looked at."""
STAT = Path("/proc/stat")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Neighbours:
    """The processors that other programs took of late; 0 where the system does not tell."""

    def __init__(self) -> None:
        self.taken = 0.0
        self._last = self._read()

    def look(self) -> float:
        """Return the processors that others take, from 0 to all of them, as of the last ``SECONDS``."""
        if time.monotonic() - self._last[0] >= SECONDS:
            before, self._last = self._last, self._read()
            seconds, ours, together = (now - then for now, then in zip(self._last, before, strict=True))
            self.taken = max(0.0, together - ours) / seconds
        return self.taken

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Return seconds on the clock, of this process, and of all processes together."""
        now, ours = time.monotonic(), time.process_time()
        try:
            first = STAT.read_bytes().split(b"\n", 1)[0]
        except OSError:
            return now, ours, ours
        user, nice, system, _, _, irq, soft, *_ = map(int, first.split()[1:])
        return now, ours, (user + nice + system + irq + soft) / TICKS


_neighbours = Neighbours()


def free_processors() -> int:
    """Return how many processors others leave, at least 1. One that is taken for less than half of the time is free."""
    return max(1, math.ceil((os.cpu_count() or 1) - _neighbours.look() - 0.5))


@contextmanager
def threads_for(tokens: int) -> Iterator[None]:
    """Compute a forward pass of so many tokens, on fewer threads if it is small and others take processors."""
    threads = torch.get_num_threads()
    if tokens >= FEW_TOKENS or threads <= (free := free_processors()):
        yield
        return
    torch.set_num_threads(free)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
