"""Against a real server on this machine that speaks just enough of the OpenAI protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import CaiError, ModelError, RecordError
from constitutional_ai.models.hosted import addresses
from constitutional_ai.models.hosted import server as server_module
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Message, Prompt, Response
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.runner import Pass, Silent
from constitutional_ai.sl_cai.respond import respond

KEY = "sk-very-secret"
ASKED = (Message("user", "Hi"),)


class Server:
    """Its ``status``, ``headers`` and ``reply`` can be set; ``requests`` are what it was asked.

    ``refuse`` returns the message with which it refuses a request, or None. ``replies`` are sent first, one each.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.reply: Any = None
        self.replies: list[tuple[int, Any]] = []
        self.refuse: Callable[[dict[str, Any]], str | None] = lambda asked: None
        self.echo: Callable[[str], Tokens] = words
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append({"path": self.path, **asked})
                server.keys.append(self.headers["Authorization"])
                refusal = server.refuse(asked)
                status, reply = server.status, server.reply
                if server.replies:
                    status, reply = server.replies.pop(0)
                if refusal:
                    status, reply = 400, {"error": {"message": refusal}}
                if reply is None:
                    reply = answer(self.path, asked, server.echo)
                body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
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


Tokens = list[tuple[str, float | None]]


def words(prompt: str) -> Tokens:
    """A token is a word with the blanks before it; its log-probability is minus its length."""
    first, *rest = re.findall(r"\s*\S+", prompt)
    return [(first, None), *[(word, -float(len(word))) for word in rest]]


def answer(path: str, asked: dict[str, Any], echo: Callable[[str], Tokens] = words) -> dict[str, Any]:
    """One token is generated where log-probabilities are asked for."""
    if path.endswith("chat/completions"):
        message = {"role": "assistant", "content": f" You said {asked['messages'][-1]['content']} "}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
    elif asked.get("logprobs"):
        before = echo(asked["prompt"]) if asked.get("echo") else []
        texts, values = zip(*before, (" so", -3.0), strict=True)
        told = {"tokens": texts, "token_logprobs": values, "text_offset": None, "top_logprobs": None}
        text = (asked["prompt"] if before else "") + " so"
        choice = {"index": 0, "finish_reason": "length", "text": text, "logprobs": told}
    else:
        choice = {"index": 0, "finish_reason": "length", "text": " and so on"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1 if asked.get("logprobs") else 2, "total_tokens": 7}
    return {
        "id": "1",
        "object": "x",
        "created": 0,
        "model": asked["model"],
        "choices": [choice],
        "usage": usage,
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("CAI_API_KEY", KEY)
    monkeypatch.setattr(server_module, "RETRIES", 0)
    monkeypatch.setattr(addresses, "LONGEST_OVERLOAD_SECONDS", 0.5)
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
    assert len(generated) == len(server_module.PROBES)
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
        (401, ModelError, "refuses the key. Set CAI_API_KEY."),
        (403, ModelError, "refuses the key. Set CAI_API_KEY."),
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


# -- what servers refuse

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


# -- the key


def run_against(server: Server, folder: Path) -> None:
    model = ServerModel("m", server.url)

    async def passes() -> AsyncIterator[Pass[Prompt, Response]]:
        prompts = [Prompt.of((Message("user", str(n)),), "red_team", "test") for n in range(3)]

        async def step(prompt: Prompt) -> Response:
            return await respond(prompt, number=0, model=model, sampling=Sampling(), seed=0)

        yield Pass({f"{p.id}.0": p for p in prompts}, step)

    with open_run(folder, {}, Silent()) as run:
        run.make_rows("01-responses", Response, passes, config={"m": model.name}, inputs={})


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
    except CaiError as error:
        assert KEY not in str(error)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY in p.read_text()]


def test_the_key_is_in_no_traceback_of_a_refusal(server: Server) -> None:
    server.status, server.reply = 401, {"error": {"message": "no"}}
    with pytest.raises(ModelError) as caught:
        generate(server)
    assert KEY not in "".join(traceback.format_exception(caught.value))


# -- several addresses


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
