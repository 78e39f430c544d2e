"""Test a server once, before the first request that depends on the result, in whichever event loop that is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Probe(Generic[Result]):
    """A test of a server, whose result is kept. One that raises an error is repeated by the next request.

    It may be used in several event loops: every stage has one of its own, and in RL every batch of ratings.
    """

    def __init__(self, test: Callable[[], Awaitable[Result]]) -> None:
        self._test = test
        self._results: list[Result] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    async def result(self) -> Result:
        """Return the result; of the requests that need it at once, one runs the test. Raises what the test raises."""
        if not self._results:
            async with self._lock_of_loop():
                if not self._results:
                    self._results.append(await self._test())
        return self._results[0]

    def _lock_of_loop(self) -> asyncio.Lock:
        """Return a lock of the running loop: one that was waited for in another loop raises RuntimeError."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock
