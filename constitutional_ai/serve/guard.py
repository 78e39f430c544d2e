"""Let only those use a server who know a token of it, and no web page but its own.

The token stands in the address, ``http://HOST:PORT/TOKEN``, because trainers take an address and no header; a header
``Authorization: Bearer TOKEN`` does as well. A browser names the page that sends a request in ``Origin``; no trainer
does. A server of pages lets those in that it serves itself.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

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

    def __init__(self, app: ASGIApp, token: str | Mapping[str, str] | None, *, own_pages: bool = False) -> None:
        """Guard ``app``; if there is no ``token``, only web pages are refused.

        A mapping gives each person's token that person's name: ``scope["person"]`` then says who sends a request, and
        ``scope["base"]`` with what the addresses of all pages begin. ``own_pages`` lets requests of pages in that were
        served under the very address to which they send.
        """
        self._app, self._own_pages = app, own_pages
        self._people = {token: ""} if isinstance(token, str) else token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        opened = self._opened(scope["path"], headers.get(b"authorization", b""))
        if b"origin" in headers and not (self._own_pages and _is_own(headers)):
            await _refusal(403, "web pages may not use this server")(scope, receive, send)
        elif opened is None:
            await _refusal(401, "the token is missing or wrong: use the address that the command printed")(
                scope, receive, send
            )
        else:
            path, base, person = opened
            inner = {"path": path, "raw_path": path.encode(), "base": base, "person": person}
            await self._app({**scope, **inner}, receive, send)

    def _opened(self, path: str, authorization: bytes) -> tuple[str, str, str] | None:
        """Return the path without the token, what it began with, and whose token it is; None without a token."""
        if self._people is None:
            return path, "", ""
        _, first, *rest = [*path.split("/", 2), ""]
        for token, person in self._people.items():
            if secrets.compare_digest(first.encode("utf-8", "replace"), token.encode()):
                return "/" + rest[0], f"/{token}", person
            if secrets.compare_digest(authorization, f"Bearer {token}".encode()):
                return path, "", person
        return None


def _is_own(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request comes from a page of the address to which it is sent."""
    return headers[b"origin"].partition(b"://")[2] == headers.get(b"host", b"").lower() != b""


def _refusal(status: int, message: str) -> JSONResponse:
    # The body was not read: without "close" the rest of it would keep the connection open.
    return JSONResponse({"error": {"message": message}}, status, {"Connection": "close"})
