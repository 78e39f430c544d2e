"""An OpenAI-compatible server on this machine that answers some requests with faults, as real ones do.

It is asynchronous and speaks HTTP/1.1 by itself, so that it can break every rule of it. It runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

Request = dict[str, Any]
Chooser = Callable[[int, Request], str]
"""Returns the fault with which the server meets a request, given its number from 0; ``""`` answers it."""

FAULTS = (
    "status 429", "wait", "status 500", "status 502", "status 503", "reset", "hang", "drip", "half", "json", "number",
    "no choices", "no logprobs", "empty", "refusal", "huge", "flood", "nested", "redirect 307",
)  # fmt: skip
"""Names of the faults; ``wait`` is a 429 with ``Retry-After``."""
WAIT_SECONDS = 1
REFUSAL = "I cannot help with that."
LATE_SECONDS = 0.1


class Script:
    """A chooser that meets the first requests with the faults of a list, one each, and answers all others."""

    def __init__(self, faults: Sequence[str]) -> None:
        self._faults = faults

    def __call__(self, number: int, request: Request) -> str:
        return self._faults[number] if number < len(self._faults) else ""


class Seeded:
    """A chooser that meets a share of the requests with a random fault, the same ones in every run."""

    def __init__(self, share: float, seed: int = 0, faults: Sequence[str] = FAULTS) -> None:
        self._share, self._seed, self._faults = share, seed, faults

    def __call__(self, number: int, request: Request) -> str:
        draw = random.Random(f"{self._seed} {number}")
        return draw.choice(self._faults) if draw.random() < self._share else ""


class FaultyServer:
    """A server that answers a chat with a text, a letter, or ``top_logprobs``, unless its chooser names a fault.

    ``received`` counts requests, ``met`` each fault, and ``answered`` holds what was asked by requests that were
    answered without a fault. Every answer repeats the number of its request.
    """

    def __init__(
        self, choose: Chooser, *, seconds: float = 0.0, text: Callable[[Request], str] | None = None
    ) -> None:
        """``seconds`` is the time of an answer; ``text`` writes it."""
        self._choose, self._seconds = choose, seconds
        self._text = text or (lambda request: f"Answer {request.get('seed', 0)}.")
        self.received, self.sent_in_floods = 0, 0
        self.met: dict[str, int] = {}
        self.answered: list[str] = []
        self.headers: list[str] = []
        self.error = "not now"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port, self._stopping = 0, False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=4096)

    async def _stop(self) -> None:
        self._server.close()
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports are closed by later turns of the loop

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._one(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if self._stopping else writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.headers.append(head)
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        request = json.loads(await reader.readexactly(int(fields.get("content-length", 0))) or b"{}")
        number, self.received = self.received, self.received + 1
        fault = self._choose(number, request)
        if self._seconds:
            await asyncio.sleep(self._seconds)
        if fault:
            self.met[fault] = self.met.get(fault, 0) + 1
            return await self._fail(fault, request, writer)
        self.answered.append(json.dumps(request, sort_keys=True))
        await _send(writer, 200, json.dumps(self._reply(request)).encode())
        return True

    def _reply(self, request: Request, **changes: Any) -> dict[str, Any]:
        text = self._text(request)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if "messages" in request:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        if request.get("logprobs") and "messages" in request:
            listed = [{"token": token, "logprob": -1.0 - n, "bytes": None} for n, token in enumerate("AB")]
            choice["message"]["content"] = "A"
            choice["logprobs"] = {"content": [{**listed[0], "top_logprobs": listed}]}
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        about = {"id": "1", "object": "chat.completion", "created": 0, "model": request.get("model", "m")}
        return {**about, "choices": [choice | changes], "usage": usage}

    async def _fail(self, fault: str, request: Request, writer: asyncio.StreamWriter) -> bool:
        name, _, status = fault.partition(" ")
        whole = json.dumps(self._reply(request)).encode()
        match name:
            case "status":
                await _send(writer, int(status), json.dumps({"error": {"message": self.error}}).encode())
            case "wait":
                await _send(writer, 429, b'{"error": {"message": "slowly"}}', f"Retry-After: {WAIT_SECONDS}")
            case "redirect":
                await _send(writer, int(status), b"", "Location: http://127.0.0.1:9/other")
            case "compressed":
                await _send(writer, 200, whole, "Content-Encoding: gzip")
            case "late":
                await asyncio.sleep(LATE_SECONDS)
                await _send(writer, 200, whole)
            case "reset":
                writer.transport.abort()
                return False
            case "hang":
                await asyncio.sleep(3600)
            case "drip":
                await _drip(writer, whole)
            case "half":
                writer.write(_head(200, len(whole)) + whole[: len(whole) // 2])
                await writer.drain()
                return False
            case "flood":
                await self._flood(writer)
                return False
            case _:
                await _send(writer, 200, self._nonsense(name, status, request))
        return True

    def _nonsense(self, name: str, rest: str, request: Request) -> bytes:
        """Return a body that is no answer, or one that nobody should believe."""
        chat = "messages" in request
        match f"{name} {rest}".strip():
            case "json":
                return b'{"choices": [{'
            case "nested":
                return b'{"choices": ' + b"[" * 100_000
            case "number":
                changes: dict[str, Any] = {"message": {"content": 5}} if chat else {"text": 5}
            case "no choices":
                return b'{"choices": []}'
            case "no logprobs":
                changes = {"logprobs": None}
            case "empty":
                changes = {"message": {"content": ""}, "logprobs": None} if chat else {"text": ""}
            case "refusal":
                changes = {
                    "message": {"content": None, "refusal": REFUSAL},
                    "logprobs": None,
                }
            case "huge":
                text = "on and on " * 100 * request.get("max_tokens", 128)
                changes = {"message": {"content": text}} if chat else {"text": text}
            case other:
                raise AssertionError(f"no fault is called {other!r}")
        return json.dumps(self._reply(request, **changes)).encode()

    async def _flood(self, writer: asyncio.StreamWriter) -> None:
        """Send a gigabyte, as far as it is taken."""
        writer.write(_head(200, 2**30) + b'{"choices": "')
        block = b"x" * 2**16
        for _ in range(2**14):
            writer.write(block)
            self.sent_in_floods += len(block)
            await writer.drain()


async def _drip(writer: asyncio.StreamWriter, whole: bytes) -> None:
    """Send a blank every few hundredths of a second, and never the answer."""
    writer.write(_head(200, len(whole) + 10**9))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, *headers: str) -> None:
    writer.write(_head(status, len(body), *headers) + body)
    await writer.drain()


def _head(status: int, length: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {length}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
