"""A server on this machine that speaks just enough of the OpenAI protocol, and what asks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Message

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


def generate(server: Server, context: Any = ASKED, **sampling: Any) -> Any:
    return asyncio.run(ServerModel("m", server.url).generate(context, Sampling(**sampling)))


def score(server: Server, context: Any, continuations: list[str]) -> list[float]:
    return asyncio.run(ServerModel("m", server.url).score(context, continuations))
