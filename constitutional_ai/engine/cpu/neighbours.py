"""One thread in place of two where other programs keep the processor busy and a step is small.

The threads of a product wait for the last of them. Where another program has the core that one of them needs, that is
a time slice of the scheduler: milliseconds for a product of microseconds. A single thread waits for nobody. Many
sequences at once keep both threads, because their products last longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

FEW_TOKENS = 16
"""Tokens of a forward pass from which two threads are faster than one in any company."""
TAKEN = 0.5
"""Processors that others take on average from which the company counts."""
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


@contextmanager
def threads_for(tokens: int) -> Iterator[None]:
    """Compute a forward pass of so many tokens on one thread, if that is faster in the present company."""
    threads = torch.get_num_threads()
    if tokens >= FEW_TOKENS or threads == 1 or _neighbours.look() < TAKEN:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
