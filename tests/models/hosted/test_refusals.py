"""What a server refuses, and what is done about it: fields, requests of the moment, turns that have begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.hosted import addresses
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Message
from tests.models.hosted.local_server import ASKED, Server, answer, generate

REFUSALS = {
    "max_tokens": "max_tokens is not supported with this model. Use max_completion_tokens.",
    "top_p": "top_p must be above 0 and below 1",
    "seed": "Unrecognized request argument supplied: seed",
    "stop": "'stop' is not supported with this model",
    "temperature": "Unsupported value: 'temperature' does not support 0.5. Only the default (1) is supported.",
    "chat_template_kwargs": "[{'loc': ['body', 'chat_template_kwargs'], 'msg': 'Extra inputs are not permitted'}]",
    "reasoning_effort": "Unsupported value: 'reasoning_effort' does not support 'none'",
}


def refusing(*names: str) -> Callable[[dict[str, Any]], str | None]:
    return lambda asked: next((REFUSALS[name] for name in names if name in asked), None)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_field_is_left_out_or_renamed_once(server: Server, name: str) -> None:
    server.refuse = refusing(name)
    told: list[str] = []
    model = ServerModel("m", server.url, told.append)
    sampling = Sampling(temperature=0.5, max_tokens=7, stop=("END",))
    texts = [asyncio.run(model.generate(ASKED, sampling)).text for _ in range(2)]
    assert texts == ["You said Hi"] * 2
    last = server.requests[-1]
    assert name not in last
    assert last.get("max_completion_tokens", last.get("max_tokens")) == 7
    refusals = 3 if name == "reasoning_effort" else 1  # less and less effort is tried
    assert len(server.requests) == 2 + refusals
    quiet = name in ("chat_template_kwargs", "reasoning_effort")
    assert [name in text for text in told] == ([] if quiet else [True])


def test_many_refused_fields_are_found_by_requests_at_once(server: Server) -> None:
    server.refuse = refusing(*REFUSALS)
    model = ServerModel("m", server.url)

    async def many() -> list[Any]:
        return await asyncio.gather(*[model.generate(ASKED, Sampling(temperature=0.5)) for _ in range(6)])

    assert [completion.text for completion in asyncio.run(many())] == ["You said Hi"] * 6
    assert server.requests[-1].keys() == {"path", "model", "messages", "max_completion_tokens"}


def test_a_refusal_that_names_no_field_is_one_of_new_fields(server: Server) -> None:
    server.refuse = lambda asked: "Bad request" if "chat_template_kwargs" in asked else None
    assert generate(server).text == "You said Hi"


@pytest.mark.parametrize(
    "message",
    ["Bad request", "max_tokens is too large: 128. At most 64 are allowed.", "the prompt is too long"],
)
def test_another_refusal_fails_its_record(server: Server, message: str) -> None:
    server.refuse = lambda asked: message
    with pytest.raises(RecordError, match=message.split(".")[0]):
        generate(server)


@pytest.mark.parametrize(("wait", "tries"), [("1", 2), (None, 2)])
def test_an_overloaded_server_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch, wait: str | None, tries: int
) -> None:
    monkeypatch.setattr(addresses, "LONGEST_OVERLOAD_SECONDS", 5.0)
    monkeypatch.setattr(addresses, "VISIBLE_SECONDS", 0.5)
    server.replies = [(429, {"error": {"message": "slow down"}})]
    server.headers = {"Retry-After": wait} if wait else {}
    told: list[str] = []
    completion = asyncio.run(ServerModel("m", server.url, told.append).generate(ASKED, Sampling()))
    assert completion.text == "You said Hi"
    assert len(server.requests) == tries
    assert told == [f"{server.url} is overloaded: the run goes on in 1 s."]


def test_a_wait_that_is_too_long_stops_the_run(server: Server) -> None:
    server.status, server.reply = 429, {"error": {"message": "come back tomorrow"}}
    server.headers = {"Retry-After": "86400"}
    with pytest.raises(ModelError, match=r"asks to wait 24.0 h more.* type the same command later"):
        generate(server)


def test_a_quota_that_is_used_up_stops_the_run(server: Server) -> None:
    server.status, server.reply = 429, {"error": {"message": "pay first", "code": "insufficient_quota"}}
    with pytest.raises(ModelError, match=r"quota is used up: .*pay first"):
        generate(server)


@pytest.mark.parametrize(
    "broken", [{"choices": []}, b"{", {}, {"error": {"message": "oops"}, "choices": None}], ids=str
)
def test_a_broken_reply_is_asked_for_again(server: Server, broken: Any) -> None:
    server.replies = [(200, broken)]
    assert generate(server).text == "You said Hi"


def test_an_empty_answer_is_asked_for_once_more(server: Server) -> None:
    empty = answer("/chat/completions", {"model": "m", "messages": [{"content": ""}]})
    empty["choices"][0]["message"]["content"] = ""
    server.replies = [(200, empty)]
    assert generate(server).text == "You said Hi"
    server.replies = [(200, empty), (200, empty)]
    assert generate(server).text == ""


# -- turns that have begun


def reading(count: Callable[[dict[str, Any]], int], server: Server) -> None:
    """Let the server count the tokens that it reads."""

    def refuse(asked: dict[str, Any]) -> None:
        server.reply = answer("/chat/completions", asked)
        server.reply["usage"]["prompt_tokens"] = count(asked)

    server.refuse = refuse


BEGUN = (Message("user", "Hi"), Message("assistant", "Well,"))


def test_a_turn_that_has_begun_is_continued_where_the_server_does_so(server: Server) -> None:
    reading(lambda asked: 9 if asked.get("continue_final_message") else 14, server)
    model = ServerModel("m", server.url)
    for _ in range(2):
        asyncio.run(model.generate(BEGUN, Sampling()))
    assert len(server.requests) == 2 + 2
    assert server.requests[-1]["continue_final_message"] is True
    assert server.requests[-1]["add_generation_prompt"] is False


def test_a_continuation_is_given_without_what_it_continues(server: Server) -> None:
    reading(lambda asked: 9 if asked.get("continue_final_message") else 14, server)
    said = (Message("user", "Hi"), Message("assistant", "You said"))
    assert generate(server, said).text == "You said"  # the stand-in says "You said You said"


@pytest.mark.parametrize("tokens", [14, 0])
def test_a_turn_that_has_begun_is_refused_where_it_would_be_answered_anew(server: Server, tokens: int) -> None:
    reading(lambda asked: tokens, server)
    with pytest.raises(ModelError, match="does not continue a turn that has begun"):
        generate(server, BEGUN)


def test_an_overloaded_address_leaves_its_requests_to_a_free_one(server: Server) -> None:
    server.status, server.reply = 429, {"error": {"message": "busy"}}
    server.headers = {"Retry-After": "99999"}
    with Server() as free:
        model = ServerModel("m", f"{server.url},{free.url}")

        async def many() -> list[Any]:
            return await asyncio.gather(*[model.generate(ASKED, Sampling()) for _ in range(6)])

        assert [completion.text for completion in asyncio.run(many())] == ["You said Hi"] * 6


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"1" * 5_001, b'{"choices": "x"'], ids=["deep", "long", "cut"]
)
def test_a_reply_that_no_parser_takes_fails_its_record(server: Server, body: bytes) -> None:
    server.reply = body
    with pytest.raises(RecordError):
        generate(server)
