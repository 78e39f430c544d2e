"""Let only those use a server who know its token, and no web page.

The token stands in the address, ``http://HOST:PORT/TOKEN``, because trainers take an address and no header; a header
``Authorization: Bearer TOKEN`` does as well. A browser names the page that sends a request in ``Origin``; no trainer
does.
"""

from __future__ import annotations

import os
import secrets

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from constitutional_ai.errors import InputError

VARIABLE = "CAI_SERVE_TOKEN"


def new_token() -> str:
    """Return ``CAI_SERVE_TOKEN``, or else a random token. Raises InputError for one that fits in no address."""
    token = os.environ.get(VARIABLE) or secrets.token_urlsafe(24)
    if len(token) < 16 or not token.isascii() or not token.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"{VARIABLE} must have 16 or more letters, digits, - or _. Unset it for a random one.")
    return token


class Guard:
    """An ASGI application that lets requests through to another."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """Guard ``app``; if there is no ``token``, only web pages are refused."""
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        path = self._open_path(scope["path"], headers.get(b"authorization", b""))
        if b"origin" in headers:
            await _refusal(403, "web pages may not use this server")(scope, receive, send)
        elif path is None:
            await _refusal(401, "the token is missing or wrong: use the address that the command printed")(
                scope, receive, send
            )
        else:
            await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    def _open_path(self, path: str, authorization: bytes) -> str | None:
        """Return the path without the token; None if the token is missing."""
        if self._token is None:
            return path
        _, first, *rest = [*path.split("/", 2), ""]
        if secrets.compare_digest(first.encode("utf-8", "replace"), self._token.encode()):
            return "/" + rest[0]
        return path if secrets.compare_digest(authorization, f"Bearer {self._token}".encode()) else None


def _refusal(status: int, message: str) -> JSONResponse:
    # The body was not read: without "close" the rest of it would keep the connection open.
    return JSONResponse({"error": {"message": message}}, status, {"Connection": "close"})
