"""Strangers' text in a real browser: nothing runs, nothing is asked for, and the page's own policy would hold alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.browser.conftest import requested, show
from tests.report.conftest import HOSTILE

ELEMENTS = "script, iframe, object, embed, img, link, base, form, a:not([href^='#']), [onload], [onerror]"
POLICY = '<meta http-equiv="Content-Security-Policy"'


class Listener(BaseHTTPRequestHandler):
    def __init__(self, heard: list[str], *given: Any) -> None:
        self.heard = heard
        super().__init__(*given)

    def do_GET(self) -> None:
        self.heard.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *given: Any) -> None: ...


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and the paths that it was asked for."""
    heard: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Listener, heard))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", heard
    server.shutdown()
    server.server_close()


def test_no_text_runs_or_asks_for_anything(browser: Any, page: Path) -> None:
    requested(browser), browser.get_log("browser")
    show(browser, page)
    assert requested(browser) == [page.as_uri()]
    # Not even an attempt: what the policy stops is logged.
    assert browser.get_log("browser") == []
    assert browser.execute_script(f'return document.querySelectorAll("{ELEMENTS}").length') == 0
    assert browser.execute_script("return document.styleSheets.length") == 1
    assert "<script>alert('x')</script>" in browser.title
    shown = browser.execute_script("return document.body.innerText")
    assert shown.count("</style><style>body{display:none}</style>") > 50


def test_no_style_of_a_stranger_is_in_force(browser: Any, page: Path) -> None:
    show(browser, page)
    rules = "[...document.styleSheets[0].cssRules].map(r => r.cssText).join()"
    css = browser.execute_script(f"return {rules}")
    assert "display: none" in css and "red_team" not in css and "evil" not in css and "url(" not in css
    assert browser.execute_script("return getComputedStyle(document.body).display") == "block"


def broken_into(page: Path, folder: Path, address: str, *, policy: bool) -> Path:
    """The page as if a text had not been escaped; and without its policy, to see that this test can see."""
    text = page.read_text().replace(
        "<main>",
        "<main><script>document.title = 'ran'</script><img src='x' onerror=\"document.title = 'ran'\">"
        f"<img src='{address}/img'><iframe src='{address}/frame'></iframe>"
        f"<style>@import url({address}/import); h1 {{ background: url({address}/style) }}</style>"
        f"<link rel=stylesheet href='{address}/link'><link rel=prefetch href='{address}/prefetch'>",
    )
    path = folder / "broken.html"
    path.write_text(text if policy else text.replace(POLICY, "<meta name=none"))
    return path


def test_the_policy_alone_would_hold(
    browser: Any, page: Path, tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    address, heard = listener
    show(browser, broken_into(page, tmp_path, address, policy=False))
    assert browser.title == "ran" and {"/img", "/frame", "/import", "/style", "/link"} <= set(heard)
    heard.clear()
    show(browser, broken_into(page, tmp_path, address, policy=True))
    assert heard == [] and HOSTILE[:8] in browser.title
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))
