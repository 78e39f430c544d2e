"""Spread requests over several addresses that serve one model, and leave out an unreachable one for a while."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.hosted.pace import Pace

Client = TypeVar("Client")
Reply = TypeVar("Reply")

RETRIES, TIMEOUT_SECONDS = 4, 600.0
REST_SECONDS = 30.0
"""How long an unreachable address is left out."""
OVERLOADED = (429, 503, 529)
"""HTTP status codes of a server that is overloaded."""


class Address(Generic[Client]):
    """The address of one server, with its pace and a client for the running event loop."""

    def __init__(
        self, url: str, connect: Callable[[Address[Client]], AbstractAsyncContextManager[Client]]
    ) -> None:
        self.url, self._connect = url, connect
        self.pace, self._out_until = Pace(), 0.0
        # A client is bound to the event loop of its connections, and every stage has a loop of its own.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Client, Any]] = WeakKeyDictionary()

    async def client(self) -> Client:
        """Return the client for the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            connection = self._open()
            self._clients[loop] = await anext(connection), connection
        return self._clients[loop][0]

    async def _open(self) -> AsyncIterator[Client]:
        """Yield a client that stays open until the loop ends: ``asyncio.run`` closes all generators."""
        async with self._connect(self) as client:
            yield client

    @property
    def is_out(self) -> bool:
        """Whether the address is left out now."""
        return time.monotonic() < self._out_until

    def leave_out(self) -> None:
        """Leave the address out for ``REST_SECONDS``."""
        self._out_until = time.monotonic() + REST_SECONDS

    async def on_response(self, response: Any) -> None:
        """Slow down when the server is overloaded. A hook for an HTTP client, which may hide this by trying again."""
        if response.status_code in OVERLOADED:
            self.pace.overloaded(_seconds(response.headers.get("retry-after")))


def _seconds(retry_after: str | None) -> float:
    """Return the seconds of a ``Retry-After`` header, at most 60; 0 for a date, which the client handles."""
    try:
        return min(60.0, max(0.0, float(retry_after or 0)))
    except ValueError:
        return 0.0


class Pool(Generic[Client]):
    """The addresses that serve one model."""

    def __init__(
        self,
        urls: Sequence[str],
        connect: Callable[[Address[Client]], AbstractAsyncContextManager[Client]],
        unreachable: type[Exception],
    ) -> None:
        """Open clients with ``connect``. ``unreachable`` is the error of an address that cannot be reached."""
        self.addresses = [Address(url, connect) for url in urls]
        self._unreachable = unreachable

    async def send(self, request: Callable[[Client], Awaitable[Reply]]) -> Reply:
        """Send a request to the address with most room. Raises the last error when none can be reached."""
        tried: set[str] = set()
        while True:
            address = self._best(tried)
            try:
                async with address.pace:
                    return await request(await address.client())
            except self._unreachable:
                address.leave_out()
                tried.add(address.url)
                if len(tried) == len(self.addresses):
                    raise

    def _best(self, tried: set[str]) -> Address[Client]:
        """Return the untried address with most room. One that is left out is returned only when all are."""
        left = [address for address in self.addresses if address.url not in tried]
        return max([a for a in left if not a.is_out] or left, key=lambda a: a.pace.free)


@contextmanager
def translating_errors(
    sdk: Any,
    base: type[Exception],
    message: Callable[[Exception], str],
    *,
    unreachable: str,
    refused: str,
    unknown: str,
) -> Iterator[None]:
    """Turn errors of a client into ModelError where the user must act, and RecordError where one request is bad.

    ``sdk`` is the module ``openai`` or ``anthropic``, whose errors have the same names but for their ``base``.
    ``message`` gives an error's text without the key. The original is never shown: its traceback may hold the key.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        raise RecordError(f"the server's reply cannot be read: {error}") from None
    except sdk.APITimeoutError:
        raise RecordError(f"no answer within {TIMEOUT_SECONDS:.0f} s") from None
    except sdk.APIConnectionError:
        raise ModelError(unreachable) from None
    except (sdk.AuthenticationError, sdk.PermissionDeniedError):
        raise ModelError(refused) from None
    except sdk.NotFoundError as error:
        raise ModelError(f"{unknown}: {message(error)}") from None
    except base as error:
        raise RecordError(message(error)) from None
