"""Answers of servers that are shown while they arrive, and are the same in the end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest

from constitutional_ai.errors import RecordError
from constitutional_ai.models.abilities import streamed
from constitutional_ai.models.hosted import addresses
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Completion, Message

ASKED = (Message("user", "Hi"),)


def chunk(text: str | None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    body = {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **more,
    }
    return f"data: {json.dumps(body)}\n\n".encode()


USAGE = chunk(None, choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
END = b"data: [DONE]\n\n"


class Streaming(ThreadingHTTPServer):
    """A server that sends the parts of a stream, each once the one before it was shown."""

    def __init__(self, parts: list[bytes], refused: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Parts)
        self.parts, self.refused, self.next = parts, refused, threading.Event()
        self.requests: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Parts(BaseHTTPRequestHandler):
    server: Streaming

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(asked)
        if self.server.refused in asked:
            body = json.dumps({"error": {"message": f"{self.server.refused} is not supported"}}).encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for part in self.server.parts:
            self.wfile.write(part)
            self.wfile.flush()
            self.server.next.wait(0.2)
            self.server.next.clear()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def serving() -> Iterator[Any]:
    servers = []

    def serve(parts: list[bytes], refused: str = "") -> Streaming:
        servers.append(Streaming(parts, refused))
        return servers[-1]

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def stream(server: Streaming) -> tuple[Completion, list[str]]:
    shown: list[str] = []

    async def run() -> Completion:
        model = ServerModel("m", f"http://127.0.0.1:{server.server_port}/v1")
        try:
            return await streamed(
                model, ASKED, Sampling(max_tokens=20), lambda t: (shown.append(t), server.next.set())[0]
            )
        finally:
            await model.close()

    return asyncio.run(run()), shown


def test_an_answer_is_shown_as_it_grows(serving: Any) -> None:
    whole = chunk("Hel") + chunk("lo, é")
    server = serving([whole[:150], whole[150:-12], whole[-12:], chunk(" you"), chunk(None, "stop"), USAGE, END])
    completion, shown = stream(server)
    assert completion == Completion("Hello, é you", completion.model, "stop", 3, 2)
    assert shown[-1] == "Hello, é you" and len(shown) >= 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(shown))
    assert server.requests[0]["stream"] is True


def test_an_answer_that_is_cut_at_its_length_is_an_answer(serving: Any) -> None:
    completion, _ = stream(serving([chunk("So much"), chunk(None, "length"), USAGE, END]))
    assert (completion.text, completion.finish_reason) == ("So much", "length")


def test_no_thought_is_shown(serving: Any) -> None:
    completion, shown = stream(
        serving([chunk("<think>Hm"), chunk("</think>Yes"), chunk(None, "stop"), USAGE, END])
    )
    assert (completion.text, completion.thought) == ("Yes", "Hm")
    assert set(shown) == {"", "Yes"}


def test_a_field_that_the_server_refuses_is_left_out(serving: Any) -> None:
    server = serving([chunk("Yes"), chunk(None, "stop"), END], refused="stream_options")
    completion, shown = stream(server)
    assert completion.text == shown[-1] == "Yes"
    assert ["stream_options" in asked for asked in server.requests] == [True, False]


def test_no_stream_and_half_a_stream_are_no_answers(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(tries: int) -> None: ...

    monkeypatch.setattr(addresses, "back_off", at_once)
    for parts in ([END], [b"nonsense\n\n"], [chunk("Half"), b'data: {"error": {"message": "gone"}}\n\n']):
        with pytest.raises(RecordError):
            stream(serving(parts))


def test_a_model_that_cannot_show_is_asked_as_ever() -> None:
    shown: list[str] = []
    completion = asyncio.run(streamed(ScriptedModel(), ASKED, Sampling(), shown.append))
    assert completion.text == "Hi" and shown == []
