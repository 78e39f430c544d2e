"""A reply that is broken once costs one more request, whatever was asked; one that stays so fails its record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.hosted import addresses
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Message
from tests.models.hosted.local_server import answer
from tests.models.hosted.scripted_server import Places, ScriptedServer, chat, systemone
from tests.models.hosted.test_decisions import CHOICE

HI = (Message("user", "Hi"),)
LIKELY: Places = [("A", {"A": 0.6, "B": 0.2}), (".", {".": 1.0})]
QUESTIONS: dict[str, Callable[[ServerModel], Awaitable[Any]]] = {
    "generate": lambda model: model.generate(HI, Sampling()),
    "letters": lambda model: model.letters(HI, "AB"),
    "decisions": lambda model: model.decide("Hi?", CHOICE),
    "scores": lambda model: model.score("Is it so?", [" yes", " oh yes"]),
}
FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "half a body": lambda body: body[: len(body) // 2],
    "no body": lambda body: b"",
    "broken JSON": lambda body: b"{" + body,
    "deep JSON": lambda body: b"[" * 100_000,
    "no choices": lambda body: b'{"choices": [], "answers": {}}',
    "nothing": lambda body: b"{}",
    "an error": lambda body: b'{"error": {"message": "no room"}}',
    "an empty answer": lambda body: (
        b'{"choices": [{"index": 0, "finish_reason": "stop", "text": "", "message": {"content": ""}}]}'
    ),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setattr(addresses, "BACKOFF_SECONDS", 0.0)
    answers = {
        "chat/completions": chat(lambda request: LIKELY),
        "completions": lambda request: (200, answer("/v1/completions", request)),
        "systemone": systemone(lambda state, options: [0.25, 0.75]),
    }
    with ScriptedServer(answers) as running:
        yield running


def answered(server: ScriptedServer, ask: Callable[[ServerModel], Awaitable[Any]], times: int = 1) -> Any:
    """The last answer of a new model that is asked one question, the server's probe before it."""
    model, server.requests[:] = ServerModel("m", server.url), []

    async def in_turn() -> Any:
        return [await ask(model) for _ in range(times)][-1]

    return asyncio.run(in_turn())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_one_broken_reply_costs_one_request_in_a_probe_and_behind_it(
    server: ScriptedServer, name: str, fault: str
) -> None:
    whole = answered(server, QUESTIONS[name])
    count = len(server.requests)
    for broken in range(count):
        server.spoil = lambda number, body, broken=broken: FAULTS[fault](body) if number == broken else body  # type: ignore[misc]
        assert answered(server, QUESTIONS[name]) == whole
        assert len(server.requests) == count + 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_reply_that_stays_broken_is_a_fault_of_its_record_after_as_many_tries(
    server: ScriptedServer, name: str, fault: str
) -> None:
    answered(server, QUESTIONS[name])
    count = len(server.requests)
    server.spoil = lambda number, body: FAULTS[fault](body) if number >= count else body
    is_answer = (name, fault) == ("generate", "an empty answer")
    if is_answer:
        assert answered(server, QUESTIONS[name], times=2).text == ""
    else:
        with pytest.raises(RecordError):
            answered(server, QUESTIONS[name], times=2)
    prompts = [str(request) for request in server.requests[count:]]
    assert max(map(prompts.count, prompts)) == (2 if is_answer else 4)


def test_a_server_that_tells_nothing_stays_one_that_cannot_be_asked(server: ScriptedServer) -> None:
    server.spoil = lambda number, body: FAULTS["an empty answer"](body)
    for name in ("letters", "decisions", "scores"):
        with pytest.raises(ModelError, match=r"feedback\.method=votes"):
            answered(server, QUESTIONS[name])
