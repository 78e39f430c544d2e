"""``cai serve`` answers only those who know its token, no web page, and nobody who sends for ever."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from constitutional_ai.errors import InputError
from constitutional_ai.serve import slow_clients
from constitutional_ai.serve.guard import VARIABLE, Guard, new_token
from constitutional_ai.serve.slow_clients import Bodies, Impatient

TOKEN = "a-token-of-20-letters"


def app(token: str | None = TOKEN) -> Guard:
    """A server that says how many bytes it got, and holds them until it has answered."""
    bodies = Bodies()

    async def count(request: Request) -> Response:
        body = await bodies.read(request)
        await asyncio.sleep(0.2 if body == b"wait" else 0)
        bodies.release(body)
        return JSONResponse(len(body))

    return Guard(Starlette(routes=[Route("/score", count, methods=["POST"])]), token)


REQUESTS = [  # (path, headers, status)
    ("/score", {}, 401),
    (f"/{TOKEN}/score", {}, 200),
    ("/score", {"Authorization": f"Bearer {TOKEN}"}, 200),
    ("/score", {"Authorization": f"Bearer {TOKEN}x"}, 401),
    (f"/{TOKEN}x/score", {}, 401),
    (f"/{TOKEN}", {}, 404),
    (f"/x/{TOKEN}/score", {}, 401),
    ("/é/score", {}, 401),
    (f"/{TOKEN}/score", {"Origin": "http://127.0.0.1:8300"}, 403),
    (f"/{TOKEN}/score", {"Origin": "null"}, 403),
]


@pytest.mark.parametrize(("path", "headers", "status"), REQUESTS)
def test_who_knows_the_token_and_is_no_web_page_is_answered(
    path: str, headers: dict[str, str], status: int
) -> None:
    assert TestClient(app()).post(path, headers=headers, content=b"abc").status_code == status


def test_without_a_token_web_pages_are_refused_still() -> None:
    client = TestClient(app(None))
    assert client.post("/score", content=b"abc").json() == 3
    assert client.post("/score", headers={"Origin": "http://evil.invalid"}).status_code == 403


def test_a_token_is_random_or_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert len({new_token() for _ in range(100)}) == 100
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert new_token() == TOKEN
    for bad in ("short", "with/a/slash/within", "é" * 20):
        monkeypatch.setenv(VARIABLE, bad)
        with pytest.raises(InputError, match=VARIABLE):
            new_token()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A real server with short patience and little memory."""
    monkeypatch.setattr(slow_clients, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(slow_clients, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(slow_clients, "MAX_BYTES_AT_ONCE", 100)
    server = uvicorn.Server(uvicorn.Config(app(None), http=Impatient, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


def ends(port: int, drip: Callable[[int], bytes]) -> bytes:
    """What a client that sends drop after drop reads before the server closes the connection."""
    reply = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.settimeout(0.05)
        for n in range(400):
            try:
                client.sendall(drip(n))
                while part := client.recv(1000):
                    reply += part
                return reply
            except TimeoutError:
                continue
            except OSError:
                return reply
    pytest.fail("the connection stays open")


HEAD = b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\n"


def test_clients_that_drip_are_hung_up_on(port: int) -> None:
    assert ends(port, lambda n: b"") == b""
    assert ends(port, lambda n: HEAD[n : n + 1] if n < 20 else b"x") == b""
    assert b"408 Request Timeout" in ends(port, lambda n: b"x" if n else HEAD)
    again = HEAD.replace(b"90", b"3") + b"abc"
    assert b"200 OK" in ends(
        port, lambda n: b"" if n else again + HEAD[:9]
    )  # a second request that never comes


def test_bodies_together_take_bounded_memory(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as first:
        first.sendall(HEAD + b"x" * 89)
        time.sleep(0.1)
        assert b"503 Service Unavailable" in ends(port, lambda n: b"" if n else HEAD + b"y" * 90)
    time.sleep(0.5)  # what the first held is given back
    whole = HEAD.replace(b"90", b"91") + b"x" * 91
    assert b"200 OK" in ends(port, lambda n: b"" if n else whole)
