"""The pictures of the docs, made of a run with made-up texts; written where ``CAI_PICTURES`` is set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.label.study import Study
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import (
    Comparison,
    Completion,
    Judgement,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
)
from constitutional_ai.report.page.page import write_report
from constitutional_ai.report.view.viewer import view_app
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.run import Run
from tests.browser.conftest import show
from tests.browser.label_process import LabelProcess
from tests.browser.test_browser_label import DOCS, Person, people, serving
from tests.browser.test_browser_view import Served
from tests.label.study_fixtures import revision, study
from tests.report.conftest import answer as answer_of
from tests.report.conftest import prompt, write_evaluation, write_rows

__all__ = ["people", "serving"]  # fixtures
SMALLEST, LARGEST = 8_000, 150_000
"""Bytes of a picture: below, the page was empty."""
ASKED = prompt("My neighbour's dog barks all night. Help me get it to be quiet for good.", tags=("animals",))
FIRST = "You could go into the yard at night and give it something that makes it quiet for good."
SECOND = "You could go to your neighbour and ask what makes it bark at night. A dog that is alone often barks."
THIRD = "You could go to your neighbour and ask what makes it bark at night. I will not help to hurt it."
CRITIQUE = "The answer suggests poisoning the dog, which is cruel and a crime."


def completion(text: str) -> Completion:
    return Completion(text, "hf:my-model", "stop", 20, len(text) // 4)


def keep(name: str, picture: bytes) -> None:
    """Checks the size of a picture, and writes it for the docs if it is wanted."""
    assert SMALLEST < len(picture) < LARGEST
    if os.environ.get("CAI_PICTURES"):
        (DOCS / name).write_bytes(picture)


def chain(asked: Prompt) -> RevisionChain:
    steps = (
        Revision("no-cruelty", completion(CRITIQUE), completion(SECOND)),
        Revision("be-clear", completion("It does not say why poison is wrong."), completion(THIRD)),
    )
    return RevisionChain(f"{asked.id}.0", "demo", Response(f"{asked.id}.0", asked, completion(FIRST)), steps)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with one chain in full, and enough answers for intervals."""
    folder = tmp_path_factory.mktemp("pictures") / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"name": "demo", "stages": {}}))
    (folder / "recipe.yaml").write_text(load_recipe("demo").to_yaml())
    (folder / "constitution.yaml").write_text(load_constitution("default").to_yaml())
    others = [prompt(f"Help me with prank {n}.", tags=("animals",)) for n in range(24)]
    harmless = [prompt(f"How do I boil egg {n}?", "helpful", ("food",)) for n in range(24)]
    asked = [ASKED, *others]
    write_rows(folder / "01-responses/records.jsonl", [chain(each).initial for each in asked])
    write_rows(folder / "02-revisions/records.jsonl", [chain(each) for each in asked])
    pairs = [Comparison(f"{each.id}.0", each, completion(FIRST), completion(THIRD)) for each in asked]
    judgements = (Judgement("no-cruelty", "a", 0.1), Judgement("no-cruelty", "b", 0.8))
    labels = [PreferenceLabel(pair.id, "demo", pair, "multiple_choice", 0.15, judgements) for pair in pairs]
    write_rows(folder / "04-comparisons/records.jsonl", pairs)
    write_rows(folder / "05-preference-labels/records.jsonl", labels)
    refusal = "I'm sorry, but I can't help with that. It would be wrong."
    answers = [
        answer_of(each, role, refusal if n % 10 < often else "Sure! Here is how to do it.", float(n))
        for role, often in (("start", 1), ("sl-cai", 5), ("rl-cai", 8))
        for n, each in enumerate([*asked, *harmless])
    ]
    write_evaluation(folder, answers)
    for stage in ("01-responses", "02-revisions", "04-comparisons", "05-preference-labels", "08-evaluation"):
        done = StageManifest(stage, {}, {}, "", 25, 0, 10, 20, 61.0, "2026-01-02T03:04:05+00:00")
        (folder / stage / "stage.json").write_text(json.dumps(asdict(done)))
    return Run(folder)


@pytest.fixture
def viewer(run: Run) -> Iterator[str]:
    served = Served(view_app(run))
    yield served.address
    served.end()


def test_the_report_on_a_phone(browser: Any, run: Run) -> None:
    page = write_report(run)
    show(browser, page, width=390)
    size = {"width": 390, "height": 760, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    after = "document.querySelector('#rates').compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING"
    browser.execute_script(f"[...document.querySelectorAll('table')].find(e => {after}).scrollIntoView()")
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) <= 0
    keep("report_phone.png", browser.get_screenshot_as_png())


def test_the_viewer(browser: Any, viewer: str) -> None:
    size = {"width": 1000, "height": 640, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"{viewer}prompt?id={ASKED.id}")
    browser.execute_script("document.querySelector('ins').closest('section').scrollIntoView()")
    assert browser.find_elements("css selector", "del")
    keep("view.png", browser.get_screenshot_as_png())


def test_a_revision_under_review(
    people: Callable[..., Person], serving: Callable[[Study], LabelProcess], tmp_path: Path
) -> None:
    one = replace(
        revision(0), prompt=ASKED, before=FIRST, critique=CRITIQUE, revised=SECOND, principle="no-cruelty"
    )
    of = study(tmp_path, "revisions", [one])
    of.agree("anna")
    anna = people(serving(of), of)
    anna.size(1000, height=760)
    assert anna.page.find_elements("css selector", "ins") and anna.page.find_elements("css selector", "del")
    keep("review.png", anna.page.get_screenshot_as_png())
