"""A server is tested once, also where one event loop follows another, as in the stages of a run and in RL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.hosted.probe import Probe
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Message
from tests.models.hosted.local_server import Server
from tests.models.hosted.test_decisions import CHOICE

BEGUN = (Message("user", "Hi"), Message("assistant", "Well,"))
PROBED: dict[str, Callable[[ServerModel], Awaitable[Any]]] = {
    "continuations": lambda model: model.generate(BEGUN, Sampling()),
    "scores": lambda model: model.score("Is it so?", [" yes"]),
    "letters": lambda model: model.letters(BEGUN[:1], "AB"),
    "decisions": lambda model: model.decide("Hi?", CHOICE),
}


@pytest.mark.parametrize("name", PROBED)
def test_a_failed_probe_that_others_waited_for_is_repeated_in_the_next_event_loop(
    server: Server, name: str
) -> None:
    model = ServerModel("m", server.url)
    server.status, server.reply = 500, {"error": {"message": "out of memory"}}

    async def at_once() -> list[Any]:
        return await asyncio.gather(*[PROBED[name](model) for _ in range(4)], return_exceptions=True)

    for _ in range(3):
        raised = asyncio.run(at_once())
        assert all(isinstance(error, ModelError | RecordError) for error in raised)
        assert len(raised) == 4


def test_many_requests_of_two_event_loops_need_one_probe() -> None:
    tests = 0

    async def test() -> None:
        nonlocal tests
        tests += 1
        await asyncio.sleep(0)
        if tests == 1:
            raise RecordError("it failed once")

    probe = Probe(test)

    async def at_once() -> list[BaseException | None]:
        return await asyncio.gather(*[probe.result() for _ in range(5)], return_exceptions=True)

    results = asyncio.run(at_once()) + asyncio.run(at_once())
    assert [type(result) for result in results] == [RecordError] + 9 * [type(None)]
    assert tests == 2  # a result of None is a result


def test_an_only_address_that_is_left_out_is_tested_all_the_same(server: Server) -> None:
    model = ServerModel("m", server.url)
    for address in model._pool.addresses:
        address.leave_out()
    server.reply = {"choices": [{"index": 0, "text": "so"}]}
    with pytest.raises(ModelError, match="returns no log-probabilities"):
        asyncio.run(model.score("Is it so?", [" yes"]))
