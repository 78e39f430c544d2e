"""Bound the time and the memory that clients of a server take, however slowly they send or read."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_BYTES = 8 * 2**20
"""Maximum size of a request."""
MAX_BYTES_AT_ONCE = 512 * 2**20
"""Maximum size of the bodies of all requests that are answered at the same time."""
HEADER_SECONDS = 20.0
"""Time from the connection, or the last answer, to the end of the next request's headers."""
BODY_SECONDS = 60.0
"""Time from the headers to the end of the body."""
READ_SECONDS = 20.0
"""Time in which a client must read some of what waits for it."""
READ_BYTES = 16 * 2**10
"""How much that is at least, while more waits."""
CLOSE = {"Connection": "close"}


class Bodies:
    """The bodies of all requests that are being answered."""

    def __init__(self) -> None:
        self._bytes = 0

    async def read(self, request: Request) -> bytes:
        """Return the body of a request. Raises HTTPException: 408, 413 or 503. ``release`` it afterwards."""
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    size += len(
                        part
                    )  # a client reads no answer while it sends: what is too large is read and dropped
                    if size <= MAX_BYTES:
                        self._hold(len(part))
                        body += part
        except TimeoutError as error:
            self._bytes -= len(body)
            raise HTTPException(408, f"a request must be sent in {BODY_SECONDS:.0f} s", CLOSE) from error
        except BaseException:
            self._bytes -= len(body)
            raise
        if size > MAX_BYTES:
            self._bytes -= len(body)
            raise HTTPException(
                413, f"a request may have {MAX_BYTES} bytes: send fewer conversations at a time"
            )
        return bytes(body)

    def release(self, body: bytes) -> None:
        """Count a body no longer."""
        self._bytes -= len(body)

    def _hold(self, size: int) -> None:
        if self._bytes + size > MAX_BYTES_AT_ONCE:
            raise HTTPException(
                503, "too many requests at the same time: send it again", {**CLOSE, "Retry-After": "1"}
            )
        self._bytes += size


class Impatient(H11Protocol):
    """A connection that is closed when no whole header comes, or nothing is read; uvicorn waits for both for ever."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # uvicorn makes one for each connection
        self._reading: asyncio.TimerHandle | None = None
        self._expect_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_request()

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever: a stream would never end."""
        super().pause_writing()
        self._reading = self.loop.call_later(READ_SECONDS, self._hang_up_on_unread, self._unread())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading:
            self._reading.cancel()

    def _expect_request(self) -> None:
        self.loop.call_later(HEADER_SECONDS, self._hang_up_after, self.cycle, self._unread())

    def _hang_up_after(self, cycle: object, before: int) -> None:
        if self.cycle is not cycle:  # a request has begun since
            return
        if self._reads(before):  # an answer is complete here long before a slow client has it
            self._expect_request()
        else:
            self.transport.abort()

    def _hang_up_on_unread(self, before: int) -> None:
        if self._reads(before):
            self._reading = self.loop.call_later(READ_SECONDS, self._hang_up_on_unread, self._unread())
        else:
            self.transport.abort()

    def _reads(self, before: int) -> bool:
        """Return whether the client has read some of the ``before`` bytes that waited for it, and more wait."""
        unread = self._unread()
        return unread > 0 and before - unread >= READ_BYTES

    def _unread(self) -> int:
        return self.transport.get_write_buffer_size() if self.transport else 0
