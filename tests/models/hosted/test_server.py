"""Requests, replies, scores and errors of a server."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from constitutional_ai.errors import CaiError, ModelError, RecordError
from constitutional_ai.models.hosted import addresses, echo
from constitutional_ai.models.hosted import server as server_module
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.recipes.recipe_file import load_recipe
from tests.models.hosted.local_server import ASKED, KEY, Server, Tokens, answer, generate, score, words


def test_a_conversation_goes_to_the_chat_address(server: Server) -> None:
    said = generate(server, temperature=0.5, max_tokens=7, seed=2**40 + 5, stop=("END",))
    assert (said.text, said.finish_reason, said.prompt_tokens, said.completion_tokens) == (
        "You said Hi",
        "stop",
        5,
        2,
    )
    assert said.model == f"server:m@{server.url}"
    assert server.requests == [
        {
            "path": "/v1/chat/completions",
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.5,
            "top_p": 1.0,
            "max_tokens": 7,
            "seed": 5,
            "stop": ["END"],
            "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
            "reasoning_effort": "none",
        }
    ]


def test_raw_text_goes_to_the_completions_address_as_it_is(server: Server) -> None:
    said = generate(server, "\n\nHuman: {x}\n\nAssistant:")
    assert (said.text, said.finish_reason) == ("and so on", "length")
    assert server.requests[0]["path"] == "/v1/completions"
    assert server.requests[0]["prompt"] == "\n\nHuman: {x}\n\nAssistant:"
    assert "stop" not in server.requests[0]


def test_a_stop_string_that_the_server_overlooked_is_cut(server: Server) -> None:
    said = generate(server, stop=("1", "2", "3", "4", " said"))  # servers take four
    assert (said.text, said.finish_reason) == ("You", "stop")
    assert server.requests[0]["stop"] == ["1", "2", "3", "4"]


def test_a_thought_is_not_stopped_but_the_answer_is_cut(server: Server) -> None:
    said = generate(server, stop=(" said",), thinking=100, max_tokens=7)
    assert said.text == "You"
    assert "stop" not in server.requests[0]
    assert server.requests[0]["max_tokens"] == 107
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}


def test_half_an_emoji_in_a_reply_is_replaced(server: Server) -> None:
    server.reply = answer(
        "/chat/completions", {"model": "m", "messages": [{"content": "a \ud83d\ude00 and \ud83d"}]}
    )
    assert generate(server).text == "You said a \U0001f600 and \ufffd"


def test_a_score_sums_the_whole_continuation_and_nothing_else(server: Server) -> None:
    # " yes" is one token of 4 letters; " oh yes" is " oh" and " yes", 3 + 4.
    assert score(server, "Is it so?", [" yes", " oh yes"]) == [-4.0, -7.0]
    asked = {r["prompt"] for r in server.requests[-3:]}
    assert asked == {"Is it so?", "Is it so? yes", "Is it so? oh yes"}
    assert all(r["echo"] and r["temperature"] == 0.0 for r in server.requests[-3:])


def test_tokens_that_straddle_the_border_are_no_score(server: Server) -> None:
    with pytest.raises(RecordError, match="do not begin where the continuation does"):
        score(server, "Is it s", ["o much"])


def with_bos(prompt: str) -> Tokens:
    """Behave like vLLM, which counts the five letters of "<bos>" into its offsets."""
    return [("<bos>", None), *[(text, -float(len(text))) for text, _ in words(prompt)]]


def in_halves(prompt: str) -> Tokens:
    """A character that is no ASCII is two tokens, each of which decodes to a sign of its own, or to none."""
    parts = [half for c in prompt for half in ((c,) if c.isascii() else ("\ufffd", ""))]
    return [(text, -1.0 if n else None) for n, text in enumerate(parts)]


@pytest.mark.parametrize(("echo", "scores"), [(with_bos, [-5.0, -4.0]), (in_halves, [-6.0, -5.0])])
def test_scores_do_not_depend_on_how_a_server_counts_tokens(
    server: Server, echo: Callable[[str], Tokens], scores: list[float]
) -> None:
    server.echo = echo
    assert score(server, "Été à Paris ☕:", [" café", " thé"]) == scores


def test_a_server_is_tested_once(server: Server) -> None:
    model = ServerModel("m", server.url)

    async def many() -> None:
        await asyncio.gather(*[model.score("Is it so?", [" yes"]) for _ in range(5)])

    asyncio.run(many())
    generated = [r for r in server.requests if not r.get("echo")]
    assert len(generated) == len(echo.PROBES)
    assert len(server.requests) == 3 * len(generated) + 2 * 5


def shifted(prompt: str) -> Tokens:
    """Behave like llama-cpp-python without a BOS token: each token has its successor's log-probability."""
    tokens = words(prompt)
    return [(tokens[0][0], None), *[(text, value - 3.0) for text, value in tokens[1:] if value]]


def test_a_server_whose_scores_disagree_with_its_samples_is_refused(server: Server) -> None:
    server.echo = shifted
    with pytest.raises(ModelError, match=r"-3.00 when it generates it and -6.00 when it reads it"):
        score(server, "Is it so?", [" yes"])


@pytest.mark.parametrize("logprobs", [None, {"content": [{"token": " so", "logprob": -3.0}]}, {"tokens": []}])
def test_a_server_without_log_probabilities_is_named(server: Server, logprobs: Any) -> None:
    """The second is what llama.cpp's own server says, and so for ``echo``, which it overlooks."""
    server.reply = answer("/v1/completions", {"model": "m"})
    server.reply["choices"][0]["logprobs"] = logprobs
    with pytest.raises(
        ModelError, match=r"returns no log-probabilities .* set feedback.method=votes"
    ) as caught:
        score(server, "Is it so?", [" yes"])
    (change,) = re.findall(r"set ([\w.]+=\w+)", str(caught.value))
    assert load_recipe("demo", [change])


def test_a_server_that_knows_no_echo_is_named(server: Server) -> None:
    server.reply = answer("/v1/completions", {"model": "m", "logprobs": 1})
    with pytest.raises(ModelError, match=r"does not return the log-probabilities of a prompt \('echo'\)"):
        score(server, "Is it so?", [" yes"])


def test_the_error_for_a_chat_that_cannot_be_scored_names_a_recipe_key(server: Server) -> None:
    with pytest.raises(ModelError) as caught:
        score(server, ASKED, [" (A)"])
    (change,) = re.findall(r"Set ([\w.]+=\w+)", str(caught.value))
    assert load_recipe("demo", [change])


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, RecordError, "too long"),
        (422, RecordError, "too long"),
        (429, ModelError, "is overloaded, and asks to wait 1 s more"),
        (503, ModelError, "type the same command later"),
        (500, RecordError, "too long"),
        (401, ModelError, "refuses the key. Set CAI_API_KEY, or write"),
        (403, ModelError, "refuses the key. Set CAI_API_KEY, or write"),
        (404, ModelError, "does not know this model or address"),
    ],
)
def test_an_http_error_fails_the_record_or_stops_the_run(
    server: Server, status: int, error: type[Exception], said: str
) -> None:
    proven = ServerModel("m", server.url)
    asyncio.run(proven.score("Hi", [" x"]))
    server.status, server.reply = status, {"error": {"message": "too long"}}
    for asking in (lambda: generate(server), lambda: asyncio.run(proven.score("Hi", [" x"]))):
        with pytest.raises(error) as caught:
            asking()
        assert said in str(caught.value)
        assert not isinstance(caught.value, RecordError if error is ModelError else CaiError)


@pytest.mark.parametrize(
    "reply",
    [{"detail": f"no {KEY}"}, {"detail": [{"msg": f"no {KEY}"}]}, {"wrong": f"no {KEY}"}, f"no {KEY}".encode()],
    ids=str,
)
def test_the_servers_error_message_is_shown_wherever_it_is_in_the_body(server: Server, reply: Any) -> None:
    server.status, server.reply = 400, reply
    with pytest.raises(RecordError, match=r"Error code: 400 - .*no \(key\)"):
        generate(server)


def test_a_long_error_message_is_cut_and_shows_no_part_of_the_key(server: Server) -> None:
    server.status = 500
    for before in range(server_module.LONGEST - len(KEY) - 20, server_module.LONGEST):
        server.reply = b"x" * before + KEY.encode() + b"x" * 10**4
        with pytest.raises(RecordError) as caught:
            generate(server)
        assert len(str(caught.value)) <= server_module.LONGEST
        assert KEY[:4] not in str(caught.value)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_that_refuses_every_score_stops_the_run(server: Server, status: int) -> None:
    server.status, server.reply = status, {"error": {"message": f"no echo for {KEY}"}}
    with pytest.raises(
        ModelError, match=r"cannot score a prompt: .*no echo for \(key\).*feedback.method=votes"
    ):
        score(server, "Hi", [" x"])


def test_an_unreachable_server_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "BACKOFF_SECONDS", 0.01)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(ModelError, match=f"cannot reach {url}. Is the server running"):
        asyncio.run(ServerModel("m", url).generate(ASKED, Sampling()))


@pytest.mark.parametrize(
    "reply",
    [b"<html>hello</html>", b"", {}, {"choices": []}, [], {"choices": [{"index": 0, "finish_reason": "stop"}]}],
    ids=str,
)
def test_a_malformed_reply_fails_its_record_or_stops_the_run(server: Server, reply: Any) -> None:
    server.reply = reply
    for asking in (lambda: generate(server), lambda: score(server, "Hi", [" x"])):
        with pytest.raises((RecordError, ModelError)):
            asking()


def test_an_empty_answer_is_an_empty_text(server: Server) -> None:
    server.reply = answer("/v1/chat/completions", {"model": "m", "messages": [{"content": ""}]})
    server.reply["choices"][0]["message"]["content"] = None
    server.reply["usage"] = None
    said = generate(server)
    assert (said.text, said.prompt_tokens) == ("", 0)
