"""Clients that stop within a request, or never read an answer, hold no memory and no connection for ever."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from constitutional_ai.serve import slow_clients
from constitutional_ai.serve.slow_clients import Bodies, Impatient

LARGE = 4 * 2**20
PART = b"x" * 2**16


@dataclass
class Served:
    """A server that streams without an end, answers at length, or counts a body."""

    port: int = 0
    streamed: list[int] = field(default_factory=list)
    """Bytes of each stream that has ended."""
    server: uvicorn.Server | None = None
    clients: list[socket.socket] = field(default_factory=list)

    def app(self) -> Starlette:
        bodies = Bodies()

        async def parts() -> AsyncIterator[bytes]:
            size = 0
            try:
                while True:
                    yield PART
                    await asyncio.sleep(0)  # uvicorn's send does not wait once a client is gone
                    size += len(PART)
            finally:
                self.streamed.append(size)

        async def endless(request: Request) -> Response:
            return StreamingResponse(parts())

        async def large(request: Request) -> Response:
            return Response(b"x" * LARGE)

        async def count(request: Request) -> Response:
            body = await bodies.read(request)
            bodies.release(body)
            return Response(str(len(body)))

        paths = {"/endless": endless, "/large": large}
        routes = [Route(path, answer) for path, answer in paths.items()]
        return Starlette(routes=[*routes, Route("/count", count, methods=["POST"])])

    def connections(self) -> int:
        assert self.server
        return len(self.server.server_state.connections)

    def asked(self, request: bytes) -> socket.socket:
        """A client that has sent something, and whose own memory for answers is small."""
        client = socket.socket()
        self.clients.append(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        client.sendall(request)
        return client


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("HEADER_SECONDS", "BODY_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(slow_clients, name, 0.5)
    one = Served()
    one.server = uvicorn.Server(uvicorn.Config(one.app(), http=Impatient, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        one.port = listening.getsockname()[1]
        thread = threading.Thread(target=one.server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield one
        for client in one.clients:
            client.close()
        one.server.should_exit = one.server.force_exit = True
        thread.join()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


POST = b"POST /count HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"


def answer(client: socket.socket, pause: float = 0.0) -> bytes:
    """Read until the end, with a pause before each part."""
    reply = b""
    while part := client.recv(2**16):
        reply += part
        time.sleep(pause)
    return reply


def wait_until_gone(served: Served) -> None:
    deadline = time.monotonic() + 20
    while served.connections() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert served.connections() == 0


def test_streams_that_nobody_reads_end_and_others_are_answered_meanwhile(served: Served) -> None:
    for _ in range(30):
        served.asked(get("/endless"))
    began = time.monotonic()
    assert answer(served.asked(POST + b"abc")).endswith(b"\r\n\r\n3")
    assert time.monotonic() - began < 5
    wait_until_gone(served)
    assert len(served.streamed) == 30
    assert max(served.streamed) < 2 * 2**20  # what the system and uvicorn hold before they wait


@pytest.mark.parametrize(
    "request_bytes",
    [get("/large"), get("/large") * 5, get("/large").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")],
    ids=["one", "five at once", "the last"],
)
def test_an_answer_that_nobody_reads_is_dropped(served: Served, request_bytes: bytes) -> None:
    served.asked(request_bytes)
    wait_until_gone(served)


@pytest.mark.parametrize("half", [b"", b"GET /lar", POST[:-4], POST + b"ab", get("/large")[:-2]])
def test_half_a_request_is_given_up_and_others_are_answered_meanwhile(served: Served, half: bytes) -> None:
    for _ in range(20):
        served.asked(half)
    assert answer(served.asked(POST + b"abc")).endswith(b"\r\n\r\n3")
    wait_until_gone(served)


def test_who_reads_slowly_but_steadily_gets_all(served: Served) -> None:
    client = served.asked(get("/large").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    began = time.monotonic()
    assert len(answer(client, pause=0.02)) > LARGE
    assert time.monotonic() - began > 3 * slow_clients.READ_SECONDS
