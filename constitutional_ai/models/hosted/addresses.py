"""Spread requests over several addresses that serve one model, and leave out an unreachable one for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from constitutional_ai.errors import CaiError, ModelError, RecordError
from constitutional_ai.models.hosted.pace import Pace

Client = TypeVar("Client")
Reply = TypeVar("Reply")

RETRIES, TIMEOUT_SECONDS = 4, 600.0
REST_SECONDS = 30.0
"""How long an unreachable address is left out."""
OVERLOADED = (429, 503, 529)
"""HTTP status codes of a server that is overloaded."""
LONGEST_WAIT_SECONDS = 7200.0
"""How long a run waits for a server that says when it can be asked again."""
LONGEST_OVERLOAD_SECONDS = 600.0
"""How long a run waits for a server that does not say."""
FOREVER = 1e9
"""Seconds to which an endless ``Retry-After`` is cut."""
VISIBLE_SECONDS = 20.0
"""The user is told of a wait that is at least as long."""


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
    """Return the seconds of a ``Retry-After`` header, which may be a date; 0 without one."""
    try:
        return min(max(0.0, float(retry_after or 0)), FOREVER)
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(retry_after or "")
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


class Pool(Generic[Client]):
    """The addresses that serve one model."""

    def __init__(
        self,
        urls: Sequence[str],
        connect: Callable[[Address[Client]], AbstractAsyncContextManager[Client]],
        unreachable: type[Exception],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open clients with ``connect``. ``unreachable`` is the error of an address that cannot be reached."""
        self.addresses = [Address(url, connect) for url in urls]
        self._unreachable, self._say = unreachable, say
        self._visible_until = 0.0

    async def send(self, request: Callable[[Client], Awaitable[Reply]]) -> Reply:
        """Send a request to the address with most room, when it is not overloaded.

        Raises the last error when none can be reached, and ModelError when one stays overloaded for too long.
        """
        tried: set[str] = set()
        waited, attempt = 0.0, 0
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
            except Exception as error:
                is_overloaded = getattr(error, "status_code", None) in OVERLOADED
                quota = "insufficient_quota" in (getattr(error, "code", None), getattr(error, "type", None))
                if not is_overloaded or quota:
                    raise
                waited, attempt = self._wait(address, error, waited, attempt), attempt + 1

    def _wait(self, address: Address[Client], error: Exception, waited: float, attempt: int) -> float:
        """Let an overloaded address rest, and return the seconds waited in all.

        It is the server's state, and not the fault of a record. Raises ModelError when the wait gets too long.
        """
        response: Any = getattr(error, "response", None)
        demanded = _seconds(response.headers.get("retry-after")) if response is not None else 0.0
        seconds = demanded or min(60.0, 2.0**attempt)
        limit = LONGEST_WAIT_SECONDS if demanded else LONGEST_OVERLOAD_SECONDS
        address.pace.overloaded(seconds)
        if any(not other.pace.rests and not other.is_out for other in self.addresses):
            return waited  # another address takes the request
        if waited + seconds > limit:
            raise ModelError(
                f"{address.url} is overloaded, and asks to wait {in_words(seconds)} more. Everything before is kept: "
                "type the same command later."
            ) from None
        now = time.monotonic()
        if seconds >= VISIBLE_SECONDS and now > self._visible_until:
            self._visible_until = now + seconds
            self._say(f"{address.url} is overloaded: the run goes on in {in_words(seconds)}.")
        return waited + seconds

    def _best(self, tried: set[str]) -> Address[Client]:
        """Return the untried address with most room. One that is left out is returned only when all are."""
        left = [address for address in self.addresses if address.url not in tried]
        return max([a for a in left if not a.is_out] or left, key=lambda a: (not a.pace.rests, a.pace.free))


def in_words(seconds: float) -> str:
    """Return a length of time in the unit that suits it.

    >>> in_words(90), in_words(900), in_words(9000)
    ('90 s', '15 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
    except CaiError:
        raise
    except (ValueError, RecursionError) as error:  # of the client's JSON: broken, too deep, a number too long
        raise RecordError(f"the server's reply cannot be read: {str(error)[:200]}") from None
    except sdk.APITimeoutError:
        raise RecordError(f"no answer within {TIMEOUT_SECONDS:.0f} s") from None
    except sdk.APIConnectionError:
        raise ModelError(unreachable) from None
    except (sdk.AuthenticationError, sdk.PermissionDeniedError):
        raise ModelError(refused) from None
    except sdk.NotFoundError as error:
        raise ModelError(f"{unknown}: {message(error)}") from None
    except sdk.RateLimitError as error:  # only a quota that is used up: ``Pool`` waits for all else
        raise ModelError(f"the server's quota is used up: {message(error)}") from None
    except base as error:
        raise RecordError(message(error)) from None
