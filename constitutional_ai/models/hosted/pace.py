"""Find how many requests to send to a server at once, by trying, since no server tells.

The number doubles as long as that gives more answers a second, and goes back one step when it does not. An overloaded
server gets half as many, and none for as long as its ``Retry-After`` header demands.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType

FIRST, HIGHEST = 8, 512
"""The limits on requests at once: at the start, and ever."""
FEW = 1 / 8
"""Share of the requests of a window that may be refused without a change of the limit."""
GAIN = 1.1
"""Factor by which the rate of answers must grow to justify a doubled limit."""


class Pace:
    """A limit on requests at once: write ``async with pace:`` around each.

    It may be used in several event loops, but one after another.
    """

    def __init__(self) -> None:
        self.limit = FIRST
        self._busy, self._waiting = 0, deque[asyncio.Future[None]]()
        self._climbing, self._rate = True, 0.0
        self._answered, self._since, self._all_busy = 0, time.monotonic(), False
        self._overloads, self._not_before = 0, 0.0

    @property
    def free(self) -> float:
        """Share of the limit that is unused; below zero when requests are waiting."""
        return 1 - (self._busy + len(self._waiting)) / self.limit

    @property
    def rests(self) -> bool:
        """Whether the server is given time to recover."""
        return self._pause() > 0

    async def __aenter__(self) -> None:
        while self._busy >= self.limit or self._pause() > 0:
            if self._busy < self.limit:
                await asyncio.sleep(self._pause())
                continue
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()  # this turn may have come just now, and must go to another request
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
        """Halve the limit, and send nothing for so many seconds.

        A few requests that are refused without a demand to wait, among many that are answered, change nothing.
        """
        now = time.monotonic()
        self._not_before = max(self._not_before, now + seconds)
        self._overloads += 1
        if not seconds and self._overloads <= FEW * self.limit:
            return
        if self._answered or now - self._since > 1:  # many requests report one overload; it counts once
            self.limit, self._climbing = max(1, self.limit // 2), False
            self._begin_window()

    def _next_window(self) -> None:
        """Adapt the limit to the rate of the last window, which has as many answers as the limit."""
        rate = self._answered / max(1e-9, time.monotonic() - self._since)
        if self._climbing and self._all_busy:
            if rate >= GAIN * self._rate:
                self._rate, self.limit = rate, min(2 * self.limit, HIGHEST)
            else:
                self.limit, self._climbing = max(FIRST, self.limit // 2), False
        elif not self._climbing and self._all_busy and self.limit < FIRST:
            self.limit += 1  # recover from an overload that may have passed
        self._begin_window()

    def _begin_window(self) -> None:
        self._answered, self._since, self._all_busy = 0, time.monotonic(), False
        self._overloads = 0

    def _pause(self) -> float:
        """Return the seconds for which nothing may be sent."""
        return self._not_before - time.monotonic()

    def _wake(self) -> None:
        """Let the first waiting request start, if its event loop still runs."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done() and not turn.get_loop().is_closed():
                turn.set_result(None)
                return
