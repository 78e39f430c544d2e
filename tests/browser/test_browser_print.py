"""The page on paper: all of it is there, in light colours, without what only a screen can use."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import show

SEEN = "return arguments[0].map(s => [...document.querySelectorAll(s)].filter(e => e.getClientRects().length).length)"


def test_what_only_a_screen_can_use_is_left_out(browser: Any, page: Path) -> None:
    show(browser, page, media="print")
    nav, figures, headings = browser.execute_script(SEEN, ["nav", "figure", "h2"])
    assert nav == 0
    assert figures > 10 and headings == 13


def test_paper_is_light_whatever_the_screen_is(browser: Any, page: Path) -> None:
    show(browser, page, media="print", dark=True)
    style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    assert browser.execute_script(style) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]


def test_no_figure_or_row_is_broken(browser: Any, page: Path) -> None:
    show(browser, page, media="print")
    kept = "return [...document.querySelectorAll('figure, tr')].map(e => getComputedStyle(e).breakInside)"
    assert set(browser.execute_script(kept)) == {"avoid"}


def test_what_is_folded_is_printed(browser: Any, page: Path, tmp_path: Path) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext: install poppler-utils")
    show(browser, page)
    paper = {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
    made = browser.execute_cdp_cmd("Page.printToPDF", paper)
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(made["data"]))
    command = ["pdftotext", "-layout", str(tmp_path / "page.pdf"), "-"]
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    folded = ("revisions:", "likelihood", "EmptyAnswer", "was shown first and got", "Find <b>fault</b>.")
    assert [said for said in folded if said not in text] == []
    assert "What moved, and what did not" in text and "Provenance" in text
