"""Bound the size and the time of a server's reply, whatever the server does, and follow no redirect.

A reply may be a gigabyte, arrive one byte a minute, or never. The time is watched by the event loop and not only by the
sockets, so that a request whose socket nobody reads any more ends too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from constitutional_ai.errors import BrokenReply

SILENT_SECONDS = 600.0
"""A request ends when no byte has come for so long; a server computes a whole answer before it sends the first."""
TOTAL_SECONDS = 1800.0
"""A request ends after so long, however much comes: some servers send blanks while they compute."""
CONNECT_SECONDS = 20.0
REPLY_BYTES = 2 * 2**20
"""Bytes of the longest reply to a short request: half a million tokens of English."""
REPLY_FACTOR = 64
"""Bytes that a reply may have more for each byte of the request: a server repeats a prompt with its probabilities."""
PLAIN = {"Accept-Encoding": "identity"}
"""Header that asks for a reply without compression: a megabyte could hold gigabytes."""

WATCH: ContextVar[Callable[[bytes], None] | None] = ContextVar("WATCH", default=None)
"""Gets the bytes of the replies to the requests that this task sends, while they arrive."""


class Redirected(BrokenReply):
    """The server sends the request elsewhere, where neither the prompt nor the key may go unasked."""


class Bounded:
    """Bounds for an HTTP client of the ``openai`` or ``anthropic`` package. Mix it in before the client's class."""

    async def send(self, request: Any, **options: Any) -> Any:
        """Return the whole response to a request. Raises BrokenReply, and TimeoutError when it takes too long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + TOTAL_SECONDS
        limit, watch = REPLY_BYTES + REPLY_FACTOR * len(request.content), WATCH.get()
        async with asyncio.timeout(SILENT_SECONDS) as silence:
            send: Any = super().send  # type: ignore[misc]
            response = await send(request, **options | {"stream": True, "follow_redirects": False})
            try:
                _check_head(response)
                body = bytearray()
                async for chunk in _chunks(response):
                    silence.reschedule(min(end, loop.time() + SILENT_SECONDS))
                    body += chunk
                    if watch:
                        watch(chunk)
                    if len(body) > limit:
                        raise BrokenReply(f"the server's reply is longer than {limit} bytes")
            finally:
                await response.aclose()
        return type(response)(
            response.status_code, headers=_plain(response.headers), content=bytes(body), request=request
        )


def _check_head(response: Any) -> None:
    if 300 <= response.status_code < 400:
        where = response.headers.get("location", "nowhere")[:80].partition("?")[0]
        raise Redirected(f"the server redirects to {where}: name that address instead")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BrokenReply("the server compresses its reply, although it was told not to")


async def _chunks(response: Any) -> Any:
    """Yield the parts of a body. Raises BrokenReply if it ends too early."""
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except Exception as error:
        # By name, because the package's HTTP library changes from version to version.
        if type(error).__name__ not in ("RemoteProtocolError", "ReadError"):
            raise
        raise BrokenReply("the server broke off in the middle of its reply") from error


def _plain(headers: Any) -> list[tuple[str, str]]:
    """Return the headers without those that describe how the body was sent."""
    framing = {"transfer-encoding", "content-length", "content-encoding"}
    return [(name, value) for name, value in headers.multi_items() if name.lower() not in framing]
