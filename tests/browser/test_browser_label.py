"""The label pages in a real browser: two people at once, reloads, kills of the server, hostile text, phones, keys."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.label.label_questions import Choice, PairQuestion, Rating
from constitutional_ai.label.study import Study
from constitutional_ai.records import Kind
from tests.browser.conftest import requested
from tests.browser.label_process import LabelProcess
from tests.browser.test_browser_reading import CONTRAST
from tests.label.study_fixtures import harm, pair, prompt, study, talk_study
from tests.report.conftest import HOSTILE

DOCS = Path(__file__).parents[2] / "docs"
SECONDS = 60
WIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture
def serving() -> Iterator[Callable[[Study], LabelProcess]]:
    running: list[LabelProcess] = []

    def serve(of: Study) -> LabelProcess:
        running.append(LabelProcess(of.folder, free_port()))
        return running[-1]

    yield serve
    for process in running:
        process.kill()


class Person:
    """Somebody at a window of the browser."""

    def __init__(self, browser: Any, server: LabelProcess, of: Study, name: str) -> None:
        browser.switch_to.new_window("window")
        self._browser, self._window = browser, browser.current_window_handle
        self.size(1280)
        browser.get(server.link(of.person(name).token))

    @property
    def page(self) -> Any:
        self._browser.switch_to.window(self._window)
        return self._browser

    def size(self, width: int, *, height: int = 900, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [theme]})

    def wait(self, script: str) -> Any:
        """Wait until a script returns something true, across new pages; return that."""
        from selenium.common.exceptions import JavascriptException, WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.page, SECONDS, 0.1, [JavascriptException, WebDriverException])
        return waiting.until(lambda page: page.execute_script(f"return {script}"))

    def wait_for(self, text: str) -> None:
        self.wait(f"document.body.innerText.includes({text!r})")

    def wait_for_choice(self) -> None:
        self.wait("document.querySelector('#choices') && !document.querySelector('#choices').disabled")

    def click(self, selector: str) -> None:
        self.page.find_element("css selector", selector).click()

    def write(self, text: str) -> None:
        self.wait("document.querySelector('textarea')")
        area = self.page.find_element("css selector", "textarea")
        area.clear()
        area.send_keys(text)

    def send(self, text: str) -> None:
        self.write(text)
        self.click("form[action$=write] button")
        self.wait("document.querySelector('#choices')")

    def choose(self, value: str) -> None:
        """Press a button once both replies are there, and wait until the server has taken it."""
        self.wait_for_choice()
        self.click(f"button[value={value}]")
        self.wait("document.querySelector('form[action$=write]')")

    def close(self) -> None:
        self.page.close()
        self._browser.switch_to.window(self._browser.window_handles[0])


@pytest.fixture
def people(browser: Any) -> Iterator[Callable[..., Person]]:
    there: list[Person] = []

    def join(server: LabelProcess, of: Study, name: str = "anna") -> Person:
        there.append(Person(browser, server, of, name))
        return there[-1]

    yield join
    for person in there:
        person.close()


@pytest.fixture
def talks(tmp_path: Path) -> Callable[..., Study]:
    def make(kind: Kind = "helpful", names: tuple[str, ...] = ("anna",)) -> Study:
        of = talk_study(tmp_path, kind=kind, people=names)
        for name in names:
            of.agree(name)
        return of

    return make


def test_two_people_reloads_and_kills_lose_nothing(
    people: Callable[..., Person], serving: Callable[[Study], LabelProcess], talks: Callable[..., Study]
) -> None:
    of = talks(names=("anna", "ben"))
    server = serving(of)
    anna, ben = people(server, of), people(server, of, "ben")
    anna.send("Message of Anna")
    anna.wait_for("word3")
    assert anna.page.execute_script("return document.querySelector('#choices').disabled")
    anna.page.refresh()
    ben.send("Message of Ben")
    anna.choose("first-3")
    ben.choose("tie")
    server.kill()  # right after both heard that their answers were taken
    assert (
        sorted((v.person, v.answer) for v in Study(of.folder).votes() if isinstance(v.answer, Choice))[1][0]
        == "ben"
    )
    assert len(of.votes()) == 2
    ben.write("Written while there was no server")
    server.start()
    ben.page.refresh()
    assert (
        ben.page.find_element("css selector", "textarea").get_attribute("value")
        == "Written while there was no server"
    )
    ben.click("form[action$=write] button")
    anna.send("Second message")
    anna.wait_for("word2")
    server.kill()  # while replies are being written
    anna.wait_for("Waiting for the server")
    server.start()
    anna.choose("second-1")  # the page has gone on by itself
    ben.choose("both_bad")
    server.kill()
    votes = [(vote.person, vote.answer) for vote in Study(of.folder).votes()]
    strengths = [(person, answer.strength) for person, answer in votes if isinstance(answer, Choice)]
    assert sorted(strengths, key=str) == [("anna", 1), ("anna", 3), ("ben", None), ("ben", None)]
    texts = [each.question.prompt.conversation[-1].content for each in of.questions()]
    assert sorted(texts) == [
        "Message of Anna",
        "Message of Ben",
        "Second message",
        "Written while there was no server",
    ]


def test_hostile_text_does_nothing(
    browser: Any,
    people: Callable[..., Person],
    serving: Callable[[Study], LabelProcess],
    talks: Callable[..., Study],
) -> None:
    of = talks()
    server = serving(of)
    anna = people(server, of)
    requested(browser), browser.get_log("browser")
    anna.send(HOSTILE.replace("\x1b", "").replace("\u202e", ""))
    anna.choose("first-2")
    page = anna.page
    assert (
        page.execute_script("return document.body.innerText").count("</style><style>body{display:none}</style>")
        == 2
    )
    unwanted = "iframe, object, embed, img, base, [onload], [onerror], style, script:not([src^='/'])"
    assert page.execute_script(f'return document.querySelectorAll("{unwanted}").length') == 0
    assert {url.split("/")[2] for url in requested(browser) if "/" in url and not url.startswith("data:")} == {
        f"127.0.0.1:{server.port}"
    }
    assert [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]] == []


def test_the_policy_stops_what_escaping_would_let_through(
    people: Callable[..., Person], serving: Callable[[Study], LabelProcess], talks: Callable[..., Study]
) -> None:
    of = talks()
    anna = people(serving(of), of)
    page = anna.page
    page.execute_script(
        "const script = document.createElement('script'); script.textContent = 'document.title = \"ran\"';"
        "document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = `ran`\">')"
    )
    anna.wait("document.images.length && document.images[0].complete")
    assert page.title != "ran"


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_a_phone_shows_all_of_it(
    people: Callable[..., Person],
    serving: Callable[[Study], LabelProcess],
    talks: Callable[..., Study],
    tmp_path: Path,
    width: int,
) -> None:
    of = talks("red_team")
    anna = people(serving(of), of)
    anna.size(width)
    anna.send("a" * 500)
    anna.wait_for_choice()
    assert anna.page.execute_script(WIDE) <= 0
    heights = anna.page.execute_script(
        "return [...document.querySelectorAll('#choices button')].map(b => b.getBoundingClientRect().height)"
    )
    assert len(heights) == 8 and min(heights) >= 44
    anna.choose("tie")
    assert anna.page.execute_script(WIDE) <= 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_and_every_field_has_a_label(
    people: Callable[..., Person], serving: Callable[[Study], LabelProcess], tmp_path: Path, dark: bool
) -> None:
    of = study(tmp_path, "pairs", [pair(n) for n in range(2)])
    anna = people(serving(of), of)
    anna.size(1280, dark=dark)
    for _ in range(3):
        found = anna.page.execute_script(CONTRAST)
        assert {name: round(spare, 2) for name, spare in found.items() if spare < 1} == {}
        fields = "[...document.querySelectorAll('textarea, input:not([type=hidden])')]"
        assert anna.page.execute_script(f"return {fields}.filter(e => !e.labels.length)") == []
        anna.click(
            "button.main" if anna.page.find_elements("css selector", "button.main") else "button[value=tie]"
        )
    picture = anna.page.get_screenshot_as_png()
    assert len(picture) < 100_000


def test_keys_alone_are_enough(
    people: Callable[..., Person], serving: Callable[[Study], LabelProcess], talks: Callable[..., Study]
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    of = talks()
    of._file.execute("UPDATE people SET agreed = NULL"), of._file.commit()
    anna = people(serving(of), of)

    def press(*keys: str) -> None:
        ActionChains(anna.page).send_keys(*keys).perform()

    def focus() -> str:
        return str(anna.page.execute_script("return document.activeElement.textContent.trim().slice(0, 24)"))

    press(Keys.TAB)
    assert focus() == "Skip to the question"
    press(Keys.ENTER, Keys.TAB)
    assert focus() == "Begin"
    press(Keys.ENTER)
    anna.wait("document.activeElement.matches('textarea')")
    press("Is 1 a number?")
    ActionChains(anna.page).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    anna.wait_for_choice()
    press("7")
    anna.wait("document.activeElement.matches('textarea')")
    press("And 2?", Keys.TAB)
    assert focus() == "Send"
    press(Keys.ENTER)
    anna.wait_for_choice()
    press(*[Keys.TAB] * 3)  # the skip link, the instructions, the first choice
    assert "Reply 1 much better" in focus()
    press(Keys.SPACE)
    anna.wait("document.activeElement.matches('textarea')")
    assert [vote.answer.strength for vote in of.votes() if isinstance(vote.answer, Choice)] == [3, 3]
    places = [vote.answer.winner == vote.shown_first for vote in of.votes() if isinstance(vote.answer, Choice)]
    assert places == [False, True]


def test_it_works_without_scripts(
    people: Callable[..., Person], serving: Callable[[Study], LabelProcess], tmp_path: Path
) -> None:
    of = study(tmp_path, "harm", [harm(0), harm(1)])
    anna = people(serving(of), of)
    anna.page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        for selector in ("button.main", "button[value='4']", "button[value='0']"):
            anna.click(selector)
        assert "All 2 questions" in anna.page.page_source
    finally:
        anna.page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert [vote.answer for vote in of.votes()] == [Rating(4), Rating(0)]


def test_a_picture_of_the_page_for_the_docs(
    people: Callable[..., Person], serving: Callable[[Study], LabelProcess], tmp_path: Path
) -> None:
    """It is written where ``CAI_PICTURES`` is set."""
    asked = prompt("My neighbour's dog barks all night. Help me get it to be quiet for good.")
    plain = "I cannot help with that."
    kind = (
        "A dog that barks all night wears you out. I will not help to hurt it: it would suffer for what its people do. "
        "Talk to your neighbour first, and note when it barks. If that changes nothing, your council can step in."
    )
    first = PairQuestion("picture", asked, asked.id, "sl-cai", "rl-cai", plain, kind)
    of = study(tmp_path, "pairs", [first, *[pair(n) for n in range(11)]])
    of.agree("anna")
    anna = people(serving(of), of)
    anna.size(1000, height=570)
    picture = anna.page.get_screenshot_as_png()
    assert 10_000 < len(picture) < 100_000
    if os.environ.get("CAI_PICTURES"):
        (DOCS / "label.png").write_bytes(picture)
