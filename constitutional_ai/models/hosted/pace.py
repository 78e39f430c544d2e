"""How many requests a server is given at once: found by trying, since no server says.

The number doubles as long as that brings more answers a second, and goes back a step when it does not. A server that
says it is overloaded is given half, and nothing at all for as long as it asks to be left alone (``Retry-After``).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType

FIRST, MOST = 8, 512
GAIN = 1.1
"""Times as many answers a second, for twice as many requests at once, that make these worth it."""


class Pace:
    """``async with pace:`` around each request. One event loop at a time, which may be another each time."""

    def __init__(self) -> None:
        self.limit = FIRST
        self._busy, self._waiting = 0, deque[asyncio.Future[None]]()
        self._climbing, self._rate = True, 0.0
        self._answered, self._since, self._all_busy = 0, time.monotonic(), False
        self._not_before = 0.0

    @property
    def free(self) -> float:
        """Share of its requests that it could still be given; below zero when others wait already."""
        return 1 - (self._busy + len(self._waiting)) / self.limit

    async def __aenter__(self) -> None:
        while self._busy >= self.limit or self._waiting_time() > 0:
            if self._busy < self.limit:
                await asyncio.sleep(self._waiting_time())
                continue
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()  # the turn may have come just now
                raise
        self._busy += 1
        self._all_busy |= self._busy >= self.limit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._busy -= 1
        if kind is None:
            self._answered += 1
            if self._answered >= self.limit:
                self._next_window()
        for _ in range(self.limit - self._busy):
            self._wake()

    def overloaded(self, seconds: float = 0.0) -> None:
        """The server says that this is too much, and to leave it alone for so long."""
        now = time.monotonic()
        self._not_before = max(self._not_before, now + seconds)
        if self._answered or now - self._since > 1:  # of the many told so at once, one counts
            self.limit, self._climbing = max(1, self.limit // 2), False
            self._begin_window()

    def _next_window(self) -> None:
        """After as many answers as there may be requests at once."""
        rate = self._answered / max(1e-9, time.monotonic() - self._since)
        if self._climbing and self._all_busy:
            if rate >= GAIN * self._rate:
                self._rate, self.limit = rate, min(2 * self.limit, MOST)
            else:
                self.limit, self._climbing = max(FIRST, self.limit // 2), False
        elif not self._climbing and self._all_busy and self.limit < FIRST:
            self.limit += 1  # halved by an overload that may have passed
        self._begin_window()

    def _begin_window(self) -> None:
        self._answered, self._since, self._all_busy = 0, time.monotonic(), False

    def _waiting_time(self) -> float:
        return self._not_before - time.monotonic()

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done() and not turn.get_loop().is_closed():
                turn.set_result(None)
                return
