"""Against a real server on this machine that speaks just enough of the Messages API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from constitutional_ai.errors import InputError, ModelError, OnlyThought, RecordError
from constitutional_ai.models.hosted import addresses
from constitutional_ai.models.load import load_model
from constitutional_ai.models.model import Sampling
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Completion, Message
from tests.models.hosted.local_server import ASKED, KEY, Server

anthropic = pytest.importorskip("constitutional_ai.models.hosted.anthropic")


def message(*texts: str, stop: str = "end_turn") -> dict[str, Any]:
    return {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text} for text in texts],
        "stop_reason": stop,
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as running:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url.removesuffix("/v1"))
        monkeypatch.setattr(addresses, "RETRIES", 0)
        monkeypatch.setattr(addresses, "BACKOFF_SECONDS", 0.01)
        monkeypatch.setattr(addresses, "LONGEST_OVERLOAD_SECONDS", 0.5)
        running.reply = message(" Hello ", "there. ")
        yield running


def generate(context: Any = ASKED, **sampling: Any) -> Completion:
    return asyncio.run(load_model("anthropic:m").generate(context, Sampling(**sampling)))


def test_a_conversation_is_sent_as_messages(server: Server) -> None:
    said = generate((Message("system", "Be kind."), *ASKED), max_tokens=7, stop=("\n", "END"))
    assert said == Completion("Hello there.", "anthropic:m", "stop", 5, 2)
    assert server.requests == [
        {
            "path": "/v1/messages",
            "model": "m",
            "max_tokens": 7,
            "system": "Be kind.",
            "messages": [{"role": "user", "content": "Hi"}],
            "stop_sequences": ["END"],
        }
    ]


def test_a_temperature_is_sent_unless_it_is_the_default(server: Server) -> None:
    generate(temperature=0.0)
    assert server.requests[0]["temperature"] == 0.0


def test_an_answer_that_was_cut_has_finish_reason_length(server: Server) -> None:
    server.reply = message("Hello", stop="max_tokens")
    assert generate().finish_reason == "length"


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, RecordError, "too long"),
        (529, ModelError, "type the same command later"),
        (401, ModelError, "Set ANTHROPIC_API_KEY."),
        (404, ModelError, "does not know the model 'm'"),
    ],
)
def test_an_http_error_fails_the_record_or_stops_the_run(
    server: Server, status: int, error: type[Exception], said: str
) -> None:
    server.status = status
    server.reply = {"type": "error", "error": {"type": "x", "message": f"too long, {KEY}"}}
    with pytest.raises(error) as caught:
        generate()
    assert said in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_thought_is_asked_for_and_told_from_the_answer(server: Server) -> None:
    server.reply = message(" Hello.")
    server.reply["content"].insert(0, {"type": "thinking", "thinking": "Hm.", "signature": "x"})
    said = generate(max_tokens=7, thinking=2000)
    assert (said.text, said.thought) == ("Hello.", "Hm.")
    assert server.requests[0]["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert server.requests[0]["max_tokens"] == 2007
    server.reply = message(stop="max_tokens")
    server.reply["content"] = [{"type": "thinking", "thinking": "Hm", "signature": "x"}]
    with pytest.raises(OnlyThought):
        generate(max_tokens=7, thinking=2000)


@pytest.mark.parametrize("stop", ["tool_use", "pause_turn", None, "another"])
def test_half_an_answer_is_never_taken_for_a_whole(server: Server, stop: Any) -> None:
    server.reply = message("Hello", stop=stop)
    with pytest.raises(RecordError, match=f"with stop_reason '{stop}'"):
        generate()


@pytest.mark.parametrize("reply", [{}, [], {"content": None}, b"<html>", message()], ids=str)
def test_a_malformed_reply_fails_its_record(server: Server, reply: Any) -> None:
    server.reply = reply
    with contextlib.suppress(RecordError, ModelError):
        assert generate().text == ""


def test_the_errors_for_raw_text_and_scores_name_the_setting_to_change(server: Server) -> None:
    with pytest.raises(ModelError, match=r"cannot continue raw text\. Set format=chat"):
        generate("\n\nHuman: Hi")
    with pytest.raises(ModelError, match=r"Set feedback\.method=votes"):
        asyncio.run(load_model("anthropic:m").score(ASKED, [" (A)"]))
    with pytest.raises(InputError, match=r"Set feedback\.method=votes"):
        load_recipe("demo", ["models.feedback=anthropic:m"])
    assert load_recipe("demo", ["models.feedback=anthropic:m", "feedback.method=votes", "feedback.format=auto"])


def test_a_missing_key_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(ModelError, match=r"needs a key\. Set ANTHROPIC_API_KEY\."):
        load_model("anthropic:m")
