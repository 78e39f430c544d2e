"""Several addresses that serve one model: the load is spread over them, and a dead one is left out for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from constitutional_ai.models.hosted.pace import Pace

Client = TypeVar("Client")
Answer = TypeVar("Answer")

REST_SECONDS = 30.0
"""How long an address that could not be reached is left out."""
OVERLOADED = (429, 503, 529)


class Address(Generic[Client]):
    """One server's address, its pace, and a client for the event loop that runs."""

    def __init__(
        self, url: str, connect: Callable[[Address[Client]], AbstractAsyncContextManager[Client]]
    ) -> None:
        self.url, self._connect = url, connect
        self.pace, self._out_until = Pace(), 0.0
        # A client belongs to the event loop that made its connections, and every stage has a loop of its own.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Client, Any]] = WeakKeyDictionary()

    async def client(self) -> Client:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            opened = self._opened()
            self._clients[loop] = await anext(opened), opened
        return self._clients[loop][0]

    async def _opened(self) -> AsyncIterator[Client]:
        """Stands open until the loop ends: ``asyncio.run`` closes all generators, and so the connections."""
        async with self._connect(self) as client:
            yield client

    @property
    def is_out(self) -> bool:
        return time.monotonic() < self._out_until

    def leave_out(self) -> None:
        self._out_until = time.monotonic() + REST_SECONDS

    async def heard(self, response: Any) -> None:
        """For an HTTP client's hook: every response, those that it retries by itself included."""
        if response.status_code in OVERLOADED:
            self.pace.overloaded(_seconds(response.headers.get("retry-after")))


def _seconds(retry_after: str | None) -> float:
    """As a number of seconds; a date is the client's to read. No server holds us for more than a minute."""
    try:
        return min(60.0, max(0.0, float(retry_after or 0)))
    except ValueError:
        return 0.0


class Pool(Generic[Client]):
    """``away`` are the errors that say an address cannot be reached."""

    def __init__(
        self,
        urls: Sequence[str],
        connect: Callable[[Address[Client]], AbstractAsyncContextManager[Client]],
        away: type[Exception],
    ) -> None:
        self.addresses = [Address(url, connect) for url in urls]
        self._away = away

    async def ask(self, asking: Callable[[Client], Awaitable[Answer]]) -> Answer:
        """The answer of the address with most room. Raises the last error where none can be reached."""
        tried: set[str] = set()
        while True:
            address = self._best(tried)
            try:
                async with address.pace:
                    return await asking(await address.client())
            except self._away:
                address.leave_out()
                tried.add(address.url)
                if len(tried) == len(self.addresses):
                    raise

    def _best(self, tried: set[str]) -> Address[Client]:
        """Not one that is left out, unless all are."""
        left = [address for address in self.addresses if address.url not in tried]
        return max([a for a in left if not a.is_out] or left, key=lambda a: a.pace.free)
