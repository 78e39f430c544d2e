"""Listen on an address and serve an application behind the guard, until interrupted.

It logs no request. The address holds a token, and it speaks plain HTTP: for this machine or a private network.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from constitutional_ai.errors import InputError
from constitutional_ai.serve.guard import Guard
from constitutional_ai.serve.slow_clients import Impatient

MOST_CONNECTIONS = 1000
"""Connections at the same time, which a file descriptor each allows on most systems; more are told to come again."""


def serve_app(
    make_app: Callable[[], ASGIApp], host: str, port: int, token: str | None, say: Callable[[str], None]
) -> None:
    """Serve what ``make_app`` returns, which is called once the port is known to be free.

    ``say`` receives the address, ``http://HOST:PORT/TOKEN``. Raises InputError if the address cannot be used.
    """

    def guarded(address: str) -> ASGIApp:
        app = Guard(make_app(), token)
        say(f"{address}/{token}" if token else address)
        return app

    serve_guarded(guarded, host, port)


def serve_guarded(make_app: Callable[[str], ASGIApp], host: str, port: int) -> None:
    """Serve what ``make_app`` returns, which gets the address, ``http://HOST:PORT``, once its port is known to be free.

    Raises InputError if the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error.strerror}. Try another --port."
        ) from error
    with listening:
        shown_host = f"[{host}]" if family == socket.AF_INET6 else host
        app = make_app(f"http://{shown_host}:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            app, http=Impatient, log_level="error", access_log=False, limit_concurrency=MOST_CONNECTIONS
        )
        uvicorn.Server(config).run(sockets=[listening])
