"""The viewer in a real browser: 10,000 records, by keyboard alone, on a phone, with strangers' texts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp

from constitutional_ai.records import Answer, Response, RevisionChain, Verdict
from constitutional_ai.report.view.viewer import view_app
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.runs.run import Run
from constitutional_ai.serve.guard import Guard
from tests.browser.conftest import requested
from tests.browser.test_browser_reading import CONTRAST
from tests.report.conftest import RED, begin, chain, completion, make, prompt

TOKEN = "a-token-of-20-letters"
MANY = 10_000
TEXT = "You could ask them whether they need help, and listen to what they tell you about it. " * 8
ELEMENTS = "script, iframe, img, object, [onload], [onerror]"


class Served:
    """An application that is served in a thread."""

    def __init__(self, app: ASGIApp) -> None:
        self.server = uvicorn.Server(uvicorn.Config(Guard(app, TOKEN), port=0, log_level="error"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/{TOKEN}/"

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a whole run whose every text is hostile, with a chain of two rounds."""
    run = make(begin(tmp_path_factory.mktemp("view") / "run"))
    first, *rest = [chain(asked) for asked in RED]
    shorter = replace(first.revisions[0], revised=completion("Better."))
    chains = [first.revised_by(shorter), *rest]
    write_rows(run.folder / "02-revisions/records.jsonl", RevisionChain, chains)
    served = Served(view_app(run))
    yield served.address
    served.end()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a run with 10,000 evaluated answers."""
    run: Run = begin(tmp_path_factory.mktemp("large") / "run")
    (run.folder / "08-evaluation").mkdir()

    def answers() -> Iterator[Answer]:
        for n in range(MANY):
            asked = prompt(f"request {n}", tags=(f"harm-{n % 9}",))
            reply = replace(completion(f"{TEXT} needle" if n == 7777 else TEXT), model="hf:m")
            response = Response(f"{asked.id}.0", asked, reply)
            yield Answer(f"{asked.id}.rl", "rl-cai", response, Verdict(n % 2 == 0, None), n / MANY)

    write_rows(run.folder / "08-evaluation/records.jsonl", Answer, answers())
    served = Served(view_app(run))
    yield served.address
    served.end()


def size(browser: Any, width: int) -> None:
    how = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", how)


def loaded(browser: Any, address: str) -> float:
    """Loads a page, and returns the seconds until it stood."""
    browser.get(address)
    end = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
    while not (milliseconds := browser.execute_script(end)):
        time.sleep(0.01)
    return milliseconds / 1000


QUERIES = ["", "?text=needle", "?verdict=objects&order=highest&page=3", "?harm=harm-3", "?text=could+ask"]


@pytest.mark.parametrize("query", QUERIES)
def test_a_page_of_ten_thousand_records_loads_at_once(browser: Any, large: str, query: str) -> None:
    """The bound is of processor time, since a busy machine makes everything late; the server is in this process."""
    size(browser, 1280)
    loaded(browser, f"{large}records")
    start = time.process_time()
    seconds = loaded(browser, f"{large}records{query}")
    processor = time.process_time() - start
    print(f"records{query}: {seconds:.2f} s, of which {processor:.2f} s of the server's processor time")
    assert browser.find_elements("css selector", "ol.hits > li")
    assert processor < 3


def test_a_search_is_made_and_followed_by_keyboard_alone(browser: Any, large: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        ActionChains(browser).send_keys(*keys).perform()

    def tab_to(selector: str) -> None:
        for _ in range(60):
            press(Keys.TAB)
            if browser.execute_script("return document.activeElement.matches(arguments[0])", selector):
                outline = "return getComputedStyle(document.activeElement).outlineStyle"
                assert browser.execute_script(outline) != "none"
                return
        pytest.fail(f"no {selector} is reached by the keyboard")

    size(browser, 1280)
    browser.get(large)
    press(Keys.TAB)
    assert browser.execute_script("return document.activeElement.className") == "skip"
    tab_to("#text")
    press("needle")
    tab_to("button[type=submit]")
    press(Keys.ENTER)
    assert "1 to 1 of 1 record" in browser.find_element("css selector", "#content").text
    tab_to("ol.hits a")
    press(Keys.ENTER)
    assert browser.find_element("tag name", "h1").text.startswith("Prompt ")


def pages(browser: Any, address: str) -> list[str]:
    """One page of each kind."""
    life = f"{address}prompt?id={RED[0].id}"
    browser.get(life)
    links = [a.get_attribute("href") for a in browser.find_elements("css selector", "#content a")]
    others = [next(link for link in links if kind in link) for kind in ("question", "difference")]
    return [address, f"{address}records", life, *others, f"{address}report"]


@pytest.mark.parametrize("width", [360, 375, 1280])
def test_no_page_is_wider_than_the_screen(browser: Any, small: str, width: int) -> None:
    size(browser, width)
    for address in pages(browser, small):
        browser.get(address)
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, address


def test_every_text_stands_out_and_every_control_has_a_name(browser: Any, small: str) -> None:
    size(browser, 375)
    nameless = (
        "return [...document.querySelectorAll('input:not([type=hidden]), select, button, a')]"
        ".filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()).length"
    )
    for address in pages(browser, small)[:-1]:
        browser.get(address)
        spare = browser.execute_script(CONTRAST)
        assert {name: round(value, 2) for name, value in spare.items() if value < 1} == {}, address
        assert browser.execute_script(nameless) == 0, address


def test_changes_are_heard_and_not_seen_by_colour_alone(browser: Any, small: str) -> None:
    size(browser, 1280)
    browser.get(f"{small}prompt?id={RED[0].id}")
    marks = browser.execute_script(
        "return ['ins', 'del'].map(t => document.querySelector(t)).map(e => "
        "[getComputedStyle(e).textDecorationLine, e.textContent.trim().split(']')[0]])"
    )
    assert marks == [["underline", "[added:"], ["line-through", "[removed:"]]


def test_no_text_runs_and_no_page_asks_for_anything_else(browser: Any, small: str) -> None:
    addresses = pages(browser, small)
    requested(browser), browser.get_log("browser")
    for address in addresses:
        browser.get(address)
        others = [url for url in requested(browser) if not url.endswith("favicon.ico")]
        assert others == [address.partition("#")[0]]
        assert browser.execute_script(f"return document.querySelectorAll('{ELEMENTS}').length") == 0
    assert [e["message"] for e in browser.get_log("browser") if "favicon" not in e["message"]] == []


def test_who_has_a_wrong_token_reads_what_to_do(browser: Any, small: str) -> None:
    browser.get(small.removesuffix("/") + "x/")
    assert "the token is missing or wrong" in browser.find_element("tag name", "body").text
