"""Serve a run to a browser: its records with search and filters, each prompt's whole life, and the report.

It only reads, and it works while the run is still going on. Pages have no scripts. Their address holds a token, and
the server listens on this machine alone unless told otherwise.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from constitutional_ai.errors import InputError
from constitutional_ai.report.page.templates import environment
from constitutional_ai.report.view.view_pages import NoSuchRecord, ViewPages
from constitutional_ai.runs.run import Run
from constitutional_ai.serve.guard import new_token
from constitutional_ai.serve.listening import serve_app

POLICY = "default-src 'none'; style-src {styles}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
REPORT_STYLES = "'unsafe-inline'; img-src data:"
"""The report's charts have styles on their lines."""
HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Page = Callable[[Mapping[str, str]], str]


def view_app(run: Run) -> Starlette:
    """Return the pages of a run as an ASGI application. Its records are indexed here, once."""
    templates = environment(Path(__file__).parent)
    styles = templates.get_template("_styles.html").render()
    templates.globals["styles"] = Markup(styles)  # noqa: S704  (our own)
    policy = POLICY.format(styles=" ".join(map(_digest, re.findall("<style>(.*?)</style>", styles, re.DOTALL))))
    pages, one_at_a_time = ViewPages(run, templates), Lock()

    def answer(text: str, status: int = 200, policy: str = policy) -> Response:
        return HTMLResponse(text, status, HEADERS | {"Content-Security-Policy": policy})

    def route(path: str, page: Page, **how: Any) -> Route:
        def endpoint(request: Request) -> Response:  # not async, so that Starlette runs it in a thread
            with one_at_a_time:
                pages.refresh()
                return answer(page(request.query_params), **how)

        return Route(path, endpoint)

    def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        sentence = str(error) if isinstance(error, (InputError, NoSuchRecord)) else "There is no such page."
        return answer(pages.fault(sentence), 500 if isinstance(error, InputError) else status)

    return Starlette(
        routes=[
            route("/", pages.overview),
            route("/records", pages.records),
            route("/prompt", pages.prompt),
            route("/difference", pages.difference),
            route("/question", pages.question),
            route("/report", pages.report, policy=POLICY.format(styles=REPORT_STYLES)),
        ],
        exception_handlers={InputError: refused, NoSuchRecord: refused, HTTPException: refused},
    )


def _digest(style: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"


def view(run: Run, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve a run until interrupted. Raises InputError if the address cannot be used."""
    serve_app(lambda: view_app(run), host, port, new_token(), lambda address: say(f"{address}/"))
