"""Against a real server on this machine that speaks just enough of the OpenAI protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cai.errors import CaiError, ModelError, RecordError
from cai.models import server as server_module
from cai.models.model import Sampling
from cai.models.server import ServerModel
from cai.recipe import load_recipe
from cai.records import Message, Prompt, Response
from cai.runs.run import open_run
from cai.runs.stage import Pass, Silent
from cai.sl_cai.respond import respond

KEY = "sk-very-secret"
ASKED = (Message("user", "Hi"),)


class Server:
    """Its ``status`` and ``reply`` can be set; ``requests`` are what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status = 200
        self.reply: Any = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append({"path": self.path, **asked})
                server.keys.append(self.headers["Authorization"])
                reply = server.reply if server.reply is not None else answer(self.path, asked)
                body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(server.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # an asker who has given up
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def answer(path: str, asked: dict[str, Any]) -> dict[str, Any]:
    if path.endswith("chat/completions"):
        message = {"role": "assistant", "content": f" You said {asked['messages'][-1]['content']} "}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
    elif asked.get("echo"):
        choice = {
            "index": 0,
            "finish_reason": "length",
            "text": asked["prompt"] + "!",
            "logprobs": echoed(asked),
        }
    else:
        choice = {"index": 0, "finish_reason": "length", "text": " and so on"}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return {
        "id": "1",
        "object": "x",
        "created": 0,
        "model": asked["model"],
        "choices": [choice],
        "usage": usage,
    }


def echoed(asked: dict[str, Any]) -> dict[str, Any]:
    """Tokens are words with the blanks before; its log-probability minus its length; one more is generated."""
    tokens = [*re.findall(r"\s*\S+", asked["prompt"]), "!"]
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    logprobs = [None, *[-float(len(t)) for t in tokens[1:]]]
    return {"tokens": tokens, "text_offset": offsets, "token_logprobs": logprobs, "top_logprobs": None}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("CAI_API_KEY", KEY)
    monkeypatch.setattr(server_module, "RETRIES", 0)
    with Server() as running:
        yield running


def generate(server: Server, context: Any = ASKED, **sampling: Any) -> Any:
    return asyncio.run(ServerModel("m", server.url).generate(context, Sampling(**sampling)))


def score(server: Server, context: Any, continuations: list[str]) -> list[float]:
    return asyncio.run(ServerModel("m", server.url).score(context, continuations))


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
            "max_tokens": 7,
            "seed": 5,
            "stop": ["END"],
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


def test_a_score_sums_the_whole_continuation_and_nothing_else(server: Server) -> None:
    # " yes" is one token of 4 letters; " oh yes" is " oh" and " yes", 3 + 4.
    assert score(server, "Is it so?", [" yes", " oh yes"]) == [-4.0, -7.0]
    assert [r["prompt"] for r in server.requests] == ["Is it so? yes", "Is it so? oh yes"]
    assert all(r["echo"] and r["temperature"] == 0.0 for r in server.requests)


def test_tokens_that_straddle_the_border_are_no_score(server: Server) -> None:
    with pytest.raises(RecordError, match="do not begin where the continuation begins"):
        score(server, "Is it s", ["o much"])


def test_a_server_without_log_probabilities_is_named(server: Server) -> None:
    server.reply = answer("/v1/completions", {"model": "m"})
    with pytest.raises(ModelError, match="does not return the log-probabilities of a prompt"):
        score(server, "Is it so?", [" yes"])


def test_what_to_type_when_a_chat_cannot_be_scored_is_a_key_of_the_recipe(server: Server) -> None:
    with pytest.raises(ModelError) as caught:
        score(server, ASKED, [" (A)"])
    (change,) = re.findall(r"Set ([\w.]+=\w+)", str(caught.value))
    assert load_recipe("demo", [change])


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, RecordError, "too long"),
        (422, RecordError, "too long"),
        (429, RecordError, "too long"),
        (500, RecordError, "too long"),
        (401, ModelError, "refuses the key. Set CAI_API_KEY."),
        (403, ModelError, "refuses the key. Set CAI_API_KEY."),
        (404, ModelError, "does not know this model or address"),
    ],
)
def test_a_refusal_is_the_records_or_the_users_to_mend(
    server: Server, status: int, error: type[Exception], said: str
) -> None:
    server.status, server.reply = status, {"error": {"message": "too long"}}
    for asking in (lambda: generate(server), lambda: score(server, "Hi", [" x"])):
        with pytest.raises(error) as caught:
            asking()
        assert said in str(caught.value)
        assert not isinstance(caught.value, RecordError if error is ModelError else CaiError)


def test_a_server_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "RETRIES", 0)
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
def test_a_reply_that_is_none_fails_its_record_or_the_model_but_is_no_bug(server: Server, reply: Any) -> None:
    server.reply = reply
    for asking in (lambda: generate(server), lambda: score(server, "Hi", [" x"])):
        with pytest.raises((RecordError, ModelError)):
            asking()


def test_an_answer_of_nothing_is_an_empty_text(server: Server) -> None:
    server.reply = answer("/v1/chat/completions", {"model": "m", "messages": [{"content": ""}]})
    server.reply["choices"][0]["message"]["content"] = None
    server.reply["usage"] = None
    said = generate(server)
    assert (said.text, said.prompt_tokens) == ("", 0)


# -- the key


def run_against(server: Server, folder: Path) -> None:
    model = ServerModel("m", server.url)

    async def passes() -> AsyncIterator[Pass[Prompt, Response]]:
        prompts = [Prompt.of((Message("user", str(n)),), "red_team", "test") for n in range(3)]

        async def step(prompt: Prompt) -> Response:
            return await respond(prompt, number=0, model=model, sampling=Sampling(), seed=0)

        yield Pass({f"{p.id}.0": p for p in prompts}, step)

    with open_run(folder, {}, Silent()) as run:
        run.make_rows(
            "01-responses", Response, passes, config={"m": model.name}, inputs={}, concurrency=2, max_failures=9
        )


def test_the_key_is_sent_and_never_written(server: Server, tmp_path: Path) -> None:
    run_against(server, tmp_path)
    assert server.keys == [f"Bearer {KEY}"] * 3
    assert repr(ServerModel("m", server.url)).count(KEY) == 0
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY in p.read_text()]


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_the_key_is_in_no_error_even_when_the_server_repeats_it(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.status, server.reply = status, {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    try:
        run_against(server, tmp_path)
    except ModelError as error:
        assert KEY not in str(error)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY in p.read_text()]


def test_the_key_is_in_no_traceback_of_a_refusal(server: Server) -> None:
    server.status, server.reply = 401, {"error": {"message": "no"}}
    with pytest.raises(ModelError) as caught:
        generate(server)
    assert KEY not in "".join(traceback.format_exception(caught.value))
