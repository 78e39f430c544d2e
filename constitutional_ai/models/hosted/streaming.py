"""Show a server's answer while it arrives (server-sent events), with all bounds of a reply that comes at once.

``Bounded`` reads every reply whole; meanwhile ``WATCH`` gets its bytes. The client of the ``openai`` package then puts
the whole reply together, so that what is shown on the way never becomes the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import openai

from constitutional_ai.errors import BrokenReply
from constitutional_ai.models.hosted.bounded import WATCH
from constitutional_ai.models.thinking import split_thought
from constitutional_ai.safe_text import whole_characters

Show = Callable[[str], None]
SHOW: ContextVar[Show | None] = ContextVar("SHOW", default=None)
"""Gets the answer so far, of the requests that this task sends."""


@contextmanager
def showing(show: Show) -> Iterator[None]:
    """Show the answers to the requests of the block while they arrive."""
    token = SHOW.set(show)
    try:
        yield
    finally:
        SHOW.reset(token)


async def streamed_reply(client: openai.AsyncOpenAI, fields: dict[str, Any], show: Show) -> Any:
    """Return the reply of ``chat/completions``, which is shown as it grows. Raises what the client raises.

    Raises BrokenReply if the server sends no stream.
    """
    token = WATCH.set(_Events(show))
    try:
        async with client.chat.completions.stream(**fields) as stream:
            # Not faults here: the reply itself says why it ended.
            with suppress(openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
                await stream.until_done()
            try:
                return stream.current_completion_snapshot
            except AssertionError:  # nothing has come
                raise BrokenReply("the server sends no stream of an answer") from None
    finally:
        WATCH.reset(token)


class _Events:
    """Reads the text out of the bytes of a stream, in whatever pieces they come."""

    def __init__(self, show: Show) -> None:
        self._show, self._rest, self._text = show, b"", ""

    def __call__(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        new = "".join(map(_content, lines))
        if new:
            self._text += new
            self._show(whole_characters(split_thought(self._text).answer))


def _content(line: bytes) -> str:
    """Return the text that a line of a stream adds to the answer. What is no such line adds none."""
    if not line.startswith(b"data:"):
        return ""
    try:
        text = json.loads(line[5:])["choices"][0]["delta"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return text if isinstance(text, str) else ""
