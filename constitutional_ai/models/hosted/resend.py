"""Send a request again whose reply is broken: half a body, JSON that no parser takes, or no answer inside.

``Pool`` does so for statuses and connections. A status of 200 is a success to it, whatever comes with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from constitutional_ai.errors import BrokenReply
from constitutional_ai.models.hosted import addresses
from constitutional_ai.models.hosted.faults import UNPARSED

Answer = TypeVar("Answer")

TRIES = 4
"""How often a request is sent whose replies are broken; one whose reply is empty is sent twice."""


async def whole_answer(
    ask: Callable[[], Awaitable[Answer]], is_empty: Callable[[Answer], bool] = lambda answer: False
) -> Answer:
    """Return what ``ask`` returns, which sends a request and reads the reply; another address is asked if there is one.

    After the last try, the last error is raised, or the empty answer returned.
    """
    token = addresses.AVOIDED.set(set())
    try:
        for number in range(1, TRIES + 1):
            try:
                answer = await ask()
            except (BrokenReply, *UNPARSED):
                if number == TRIES:
                    raise
                await addresses.back_off(number)
                continue
            if number > 1 or not is_empty(answer):
                break
        return answer
    finally:
        addresses.AVOIDED.reset(token)
