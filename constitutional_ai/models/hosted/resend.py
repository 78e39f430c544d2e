"""Send a request again whose reply is broken: half a body, JSON that no parser takes, or no answer inside.

The ``openai`` client does so for statuses and connections. A status of 200 is a success to it, whatever comes with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import openai

from constitutional_ai.errors import BrokenReply

Answer = TypeVar("Answer")

TRIES = 3
"""How often a request is sent whose replies are broken; one whose reply is empty is sent twice."""


async def whole_answer(
    ask: Callable[[], Awaitable[Answer]], is_empty: Callable[[Answer], bool] = lambda answer: False
) -> Answer:
    """Return what ``ask`` returns, which sends a request and reads the reply.

    After the last try, the last error is raised, or the empty answer returned.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            answer = await ask()
        except Exception as error:
            if not tries_left or not _is_transient(error):
                raise
            continue
        if tries_left < TRIES - 1 or not is_empty(answer):
            break
    return answer


def _is_transient(error: Exception) -> bool:
    """Return whether another try may go well. The client's JSON parser raises ValueError and RecursionError."""
    if isinstance(error, openai.APIConnectionError):
        # The body ended too early. By name, because the client's HTTP library changes from version to version.
        return type(error.__cause__).__name__ == "RemoteProtocolError"
    return isinstance(error, BrokenReply | ValueError | RecursionError)
