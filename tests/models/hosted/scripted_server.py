"""A stand-in for servers, on this machine: every address answers what a function of the request returns."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
Answer = Callable[[Request], tuple[int, Any]]


class ScriptedServer:
    """A server whose ``answers`` are functions by the end of the address, from the request to a status and a reply.

    Other addresses are not found. ``requests`` are all requests, each with its address under ``path``. ``spoil``
    returns what is sent for a reply, given the number of the request and the whole body; of half a body the rest never
    comes.
    """

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.requests: list[Request] = []
        self.spoil: Callable[[int, bytes], bytes] = lambda number, body: body
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                path = self.path.removeprefix("/v1/")
                number = len(server.requests)
                server.requests.append({"path": path, **request})
                answer = server.answers.get(path, lambda _: (404, {"detail": "Not Found"}))
                status, reply = answer(request)
                whole = json.dumps(reply).encode()
                body = server.spoil(number, whole)
                is_half = body and whole.startswith(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(whole if is_half else body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    def paths(self) -> list[str]:
        """The addresses of all requests, in order."""
        return [request["path"] for request in self.requests]

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


# -- replies of decision endpoints

Weigh = Callable[[str, list[str]], list[float]]
"""The probability of each option of a question about a text, in the order in which they are shown.

The options of a predicate are its own instructions, which are so, and the same negated by ``not``.
"""


def negated(text: str) -> list[str]:
    """The two options of a predicate."""
    return [text, f"not {text}"]


def systemone(weigh: Weigh, label_mass: float | None = 0.9) -> Answer:
    """Answer as vLLM does; without a label mass, as ``transformers serve`` does."""

    def answer(request: Request) -> tuple[int, Any]:
        ((name, question),) = request["questions"].items()
        own: dict[str, Any] = {"type": question["type"]}
        if question["type"] == "noul":
            own["noul"] = weigh(request["state"], negated(question["instructions"]))[0]
        else:
            criteria = question["criteria"]
            options = list(criteria.values()) if isinstance(criteria, dict) else criteria
            names = list(criteria) if isinstance(criteria, dict) else [str(n) for n in range(len(criteria))]
            given = dict(zip(names, weigh(request["state"], options), strict=True))
            own |= {"probabilities": given, "confidence": 0.5}
        reply: dict[str, Any] = {
            "model": request["model"],
            "answers": {name: own},
            "usage": {"input_tokens": 7, "output_tokens": 1},
        }
        if label_mass is not None:
            reply["diagnostics"] = {name: {"label_mass": label_mass, "argmax_is_label": label_mass > 0.5}}
        return 200, reply

    return answer


def decisions(weigh: Weigh) -> Answer:
    """Answer as OpenAI does."""

    def answer(request: Request) -> tuple[int, Any]:
        (question,) = request["questions"]
        own = {"type": question["type"], "name": question["name"], "confidence": 0.5}
        if question["type"] == "predicate":
            del own["confidence"]
            own["probability"] = weigh(request["input"], negated(question["instructions"]))[0]
        elif question["type"] == "choice":
            given = weigh(request["input"], [choice["description"] for choice in question["choices"]])
            own["probabilities"] = [
                {"value": choice["value"], "probability": p}
                for choice, p in zip(question["choices"], given, strict=True)
            ]
        else:
            labels = [level["label"] for level in question["levels"]]
            own["probabilities"] = [
                {"label": label, "value": n, "probability": p}
                for n, (label, p) in enumerate(zip(labels, weigh(request["input"], labels), strict=True), 1)
            ]
        usage = {"input_tokens": 7, "output_tokens": 1, "total_tokens": 8}
        return 200, {"answers": [own], "model": request["model"], "usage": usage}

    return answer


def refusing(request: Request) -> tuple[int, Any]:
    """Decline to answer, as OpenAI does, unless it is only asked about fruit."""
    if "apple" in json.dumps(request):
        return decisions(lambda state, options: [0.5] * len(options))(request)
    return 200, {"answers": [{"type": "refusal", "name": "answer"}], "model": "m", "usage": {}}


# -- replies of a chat with top_logprobs

Places = list[tuple[str, dict[str, float]]]
"""Each place of an answer: the token that was said, and the probabilities of likely ones."""


def chat(say: Callable[[Request], Places]) -> Answer:
    """Answer as OpenAI's chat does."""

    def answer(request: Request) -> tuple[int, Any]:
        places = say(request)[: request["max_tokens"]]
        text = "".join(token for token, _ in places)

        def listed(token: str, p: float) -> dict[str, Any]:
            return {"token": token, "logprob": math.log(p) if p else -9999.0, "bytes": list(token.encode())}

        content = [
            {**listed(token, top[token]), "top_logprobs": [listed(*one) for one in top.items()]}
            for token, top in places
        ]
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
            "logprobs": {"content": content} if request.get("logprobs") else None,
        }
        usage = {"prompt_tokens": 5, "completion_tokens": len(places), "total_tokens": 5 + len(places)}
        return 200, {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [choice],
            "usage": usage,
        }

    return answer
