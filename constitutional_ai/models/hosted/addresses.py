"""Spread requests over several addresses that serve one model, and sit out what passes.

An address that cannot be reached is left out for a while. When none can be, and one has answered before, the run waits
for it and says so. What a request meets is bounded: by tries where it alone goes wrong, by time where the server does.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, NoReturn, TypeVar
from weakref import WeakKeyDictionary

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.hosted.faults import broken_reply, fault_of, retry_after
from constitutional_ai.models.hosted.pace import Pace
from constitutional_ai.safe_text import without_login

Client = TypeVar("Client")
Reply = TypeVar("Reply")

RETRIES = 4
"""How often a request that fails alone is sent again."""
FIRST_TRIES = 3
"""How often an address that never answered is tried."""
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.25, 10.0
"""The first wait before another try, which doubles with each, and the longest."""
REST_SECONDS = 30.0
"""How long an unreachable address is left out."""
OUTAGE_SECONDS = 600.0
"""How long a run waits for a server that has answered before and no longer does."""
LONGEST_WAIT_SECONDS = 7200.0
"""How long a run waits for a server that says when it can be asked again."""
LONGEST_OVERLOAD_SECONDS = 600.0
"""How long a run waits for a server that does not say."""
CLOSE_SECONDS = 5.0
"""How long the end of a client may take."""
VISIBLE_SECONDS, VISIBLE_OUTAGE_SECONDS = 20.0, 3.0
"""The user is told of a wait, and of an outage, that is at least as long."""

Opened = AsyncIterator[Any]
_OPEN: WeakKeyDictionary[asyncio.AbstractEventLoop, set[Opened]] = WeakKeyDictionary()
"""The clients that are open in each event loop. Without a reference the garbage collector would close their sockets
behind the loop's back, and the loop would never watch later sockets of the same numbers."""

AVOIDED: ContextVar[set[str] | None] = ContextVar("avoided", default=None)
"""Addresses that have answered the request of this context with no answer: others are tried first."""


class Address(Generic[Client]):
    """The address of one server, with its pace and a client for the running event loop."""

    def __init__(
        self, url: str, connect: Callable[[Address[Client]], AbstractAsyncContextManager[Client]]
    ) -> None:
        self.url, self.shown, self._connect = url, without_login(url), connect
        self.pace, self._out_until = Pace(), 0.0
        self.heard = float("-inf")
        """When the server last answered anything, by the monotonic clock."""
        # A client is bound to the event loop of its connections, and every stage has a loop of its own.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Client, Any]] = WeakKeyDictionary()

    async def client(self) -> Client:
        """Return the client for the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            connection = self._open()
            self._clients[loop] = await anext(connection), connection
            _OPEN.setdefault(loop, set()).add(connection)
        return self._clients[loop][0]

    async def close(self) -> None:
        """Close the client of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop in self._clients:
            _, connection = self._clients.pop(loop)
            _OPEN[loop].discard(connection)
            with suppress(RuntimeError):  # the loop ends, and is closing it already
                await connection.aclose()

    async def _open(self) -> AsyncIterator[Client]:
        """Yield a client that is closed by ``close``, or when the loop ends: ``asyncio.run`` closes all generators."""
        client = self._connect(self)
        try:
            yield await client.__aenter__()
        finally:
            # A connection whose socket nobody watches any more would never be told that it is closed.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await client.__aexit__(None, None, None)

    @property
    def is_out(self) -> bool:
        """Whether the address is left out now."""
        return time.monotonic() < self._out_until

    def leave_out(self) -> None:
        """Leave the address out for ``REST_SECONDS``."""
        self._out_until = time.monotonic() + REST_SECONDS

    def note_answer(self) -> None:
        """Note that the server has answered something."""
        self.heard, self._out_until = time.monotonic(), 0.0


@dataclass
class _Trouble:
    """What one request has met so far."""

    tries: int = 0
    """Tries that failed although the server works."""
    away: int = 0
    """Tries in a row at which no address could be reached."""
    since: float = 0.0
    """When the first of those failed."""
    waited: float = 0.0
    """Seconds for which an overloaded server was given rest."""
    overloads: int = 0
    unreached: set[str] = field(default_factory=set)


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
        self._out_since: float | None = None

    async def close(self) -> None:
        """Close all clients of the running event loop."""
        for address in self.addresses:
            await address.close()

    async def send(
        self, request: Callable[[Client], Awaitable[Reply]], *, only: Address[Client] | None = None
    ) -> Reply:
        """Send a request to the address with most room, or to ``only`` one, when it is not overloaded.

        Raises the last error of a request that fails again and again, or if no address has ever answered; BrokenReply
        for half a reply; and ModelError when all addresses stay overloaded or away for too long.
        """
        addresses = [only] if only else self.addresses
        trouble, avoided = _Trouble(), AVOIDED.get()
        while True:
            address = self._best(addresses, trouble.unreached, avoided or set())
            try:
                async with address.pace:
                    reply = await request(await address.client())
            except Exception as error:
                if avoided is not None:
                    avoided.add(address.url)
                await self._recover(addresses, address, error, trouble)
                continue
            if avoided is not None:
                avoided.add(address.url)
            self._note_answer(address)
            return reply

    async def _recover(
        self,
        addresses: Sequence[Address[Client]],
        address: Address[Client],
        error: Exception,
        trouble: _Trouble,
    ) -> None:
        """Wait until the request may be sent again. Raises an error if it may not."""
        if broken := broken_reply(error):
            raise broken from None
        fault = fault_of(error, self._unreachable)
        if fault not in ("away", "silent"):
            self._note_answer(address)
        if fault == "away":
            await self._sit_out(addresses, address, error, trouble)
        elif fault == "overloaded":
            await self._give_rest(addresses, address, error, trouble)
        else:
            trouble.tries += 1
            # A request that was silent has already taken its time, and perhaps its price.
            if fault == "final" or trouble.tries > (1 if fault == "silent" else RETRIES):
                raise error
            if fault == "silent":
                self._say(f"{address.shown} has left a request without an answer: it is sent again.")
            await back_off(trouble.tries)

    async def _sit_out(
        self,
        addresses: Sequence[Address[Client]],
        address: Address[Client],
        error: Exception,
        trouble: _Trouble,
    ) -> None:
        """Try another address, or wait for the first that answers again."""
        address.leave_out()
        trouble.unreached.add(address.url)
        if len(trouble.unreached) < len(addresses):
            return
        trouble.unreached.clear()
        now, heard = time.monotonic(), max(one.heard for one in addresses)
        if heard > trouble.since:  # the first failure, or others were answered since
            trouble.since, trouble.tries, trouble.away = now, trouble.tries + 1, 0
            if trouble.tries > 1 + RETRIES:
                raise RecordError(
                    f"{address.shown} breaks the connection whenever it gets this request, and answers others"
                )
        trouble.since, trouble.away = trouble.since or now, trouble.away + 1
        if heard == float("-inf"):
            if trouble.away >= FIRST_TRIES:
                raise error
        elif now - trouble.since > OUTAGE_SECONDS:
            _give_up(address)
        elif now - trouble.since >= VISIBLE_OUTAGE_SECONDS and self._out_since is None:
            self._out_since = trouble.since
            began = datetime.now().strftime("%H:%M:%S")
            self._say(
                f"{began}: {address.shown} no longer answers. The run waits up to {in_words(OUTAGE_SECONDS)} for it, "
                "and goes on by itself."
            )
        await back_off(trouble.away)

    async def _give_rest(
        self,
        addresses: Sequence[Address[Client]],
        address: Address[Client],
        error: Exception,
        trouble: _Trouble,
    ) -> None:
        """Let an overloaded address rest. It is the server's state, and not the fault of a record."""
        demanded = retry_after(error)
        seconds = demanded or min(60.0, 2.0**trouble.overloads)
        limit = LONGEST_WAIT_SECONDS if demanded else LONGEST_OVERLOAD_SECONDS
        trouble.overloads += 1
        # Without a demand, the first time says little about other requests: only this one waits.
        is_alone = not demanded and trouble.overloads == 1
        address.pace.overloaded(0.0 if is_alone else seconds)
        if any(other is not address and not other.pace.rests and not other.is_out for other in addresses):
            return  # another address takes the request
        if trouble.waited + seconds > limit:
            raise ModelError(
                f"{address.shown} is overloaded, and asks to wait {in_words(seconds)} more. Everything before is kept: "
                "type the same command later."
            ) from None
        now = time.monotonic()
        if seconds >= VISIBLE_SECONDS and now > self._visible_until:
            self._visible_until = now + seconds
            self._say(f"{address.shown} is overloaded: the run goes on in {in_words(seconds)}.")
        trouble.waited += seconds
        if is_alone:
            await asyncio.sleep(seconds * random.uniform(0.5, 1.0))

    def _note_answer(self, address: Address[Client]) -> None:
        address.note_answer()
        if self._out_since is not None:
            seconds, self._out_since = time.monotonic() - self._out_since, None
            self._say(f"{address.shown} answers again, after {in_words(seconds)}.")

    def _best(
        self, addresses: Sequence[Address[Client]], unreached: set[str], avoided: set[str]
    ) -> Address[Client]:
        """Return the address with most room that has not yet failed. One left out is returned only when all are."""
        left = [address for address in addresses if address.url not in unreached]
        here = [address for address in left if not address.is_out] or left
        return max(here, key=lambda a: (a.url not in avoided, not a.pace.rests, a.pace.free))


def _give_up(address: Address[Any]) -> NoReturn:
    raise ModelError(
        f"{address.shown} has not answered for {in_words(OUTAGE_SECONDS)}. All finished records are kept: start the "
        "server again, then type the same command."
    ) from None


async def back_off(tries: int) -> None:
    """Wait before another try, each time about twice as long."""
    longest = min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** (tries - 1))
    await asyncio.sleep(longest * random.uniform(0.5, 1.0))


def in_words(seconds: float) -> str:
    """Return a length of time in the unit that suits it.

    >>> in_words(90), in_words(900), in_words(9000)
    ('90 s', '15 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
