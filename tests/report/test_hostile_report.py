"""A run whose every text is a stranger's: the page and ``cai show`` say it all and obey none of it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from constitutional_ai.evaluation import answer_rates
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Answer
from constitutional_ai.report.contents import read_contents
from constitutional_ai.report.page.page import render
from constitutional_ai.report.show.record_history import history_of
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible
from tests.report.conftest import finish, write_rows
from tests.report.page.test_page import Elements
from tests.test_hostile_text import FIELDS, LONG, TEXT, all_records

FILES = {
    "Response": "01-responses/records.jsonl",
    "RevisionChain": "02-revisions/records.jsonl",
    "Comparison": "04-comparisons/records.jsonl",
    "PreferenceLabel": "05-preference-labels/records.jsonl",
    "GateAnswer": "05-preference-labels/gate.jsonl",
    "Answer": "08-evaluation/records.jsonl",
    "Failure": "02-revisions/failures.jsonl",
}
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def run_of(folder: Path, fields: Sequence[str]) -> Run:
    """A run of one prompt with every kind of record."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"name": fields[6], "stages": {}}))
    (folder / "recipe.yaml").write_text(Recipe().to_yaml())
    records = all_records(fields)
    for name, file in FILES.items():
        write_rows(folder / file, [r for r in records if type(r).__name__ == name])
        finish(folder, Path(file).parent.name)
    answers = [r for r in records if isinstance(r, Answer)]
    metrics = [asdict(m) for m in answer_rates.metrics(answers, ["start", "sl-cai", "rl-cai"])]
    (folder / "08-evaluation/metrics.json").write_text(json.dumps(metrics))
    return Run(folder)


def page_of(folder: Path, fields: Sequence[str]) -> tuple[str, Elements]:
    page = render(read_contents(run_of(folder, fields)))
    return page, Elements(page)


def unspaced(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(TEXT | st.text())
def test_what_is_made_visible_moves_no_cursor_and_turns_no_order(text: str) -> None:
    shown = visible(text)
    assert not re.search(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{BIDI}]", shown)
    assert visible(shown) == shown


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Elements:
    """A page of the same run with long but tame texts."""
    return page_of(tmp_path_factory.mktemp("usual"), [f"{'long ' * 2000}{n}" for n in range(7)])[1]


@settings(max_examples=4)
@given(FIELDS)
@example([LONG] * 7)
def test_no_text_becomes_markup_of_the_page(usual: Elements, tmp_path: Path, fields: list[str]) -> None:
    page, hostile = page_of(tmp_path / "run", fields)
    assert set(hostile.tags) <= set(usual.tags)
    assert {name for name, _ in hostile.attributes} <= {name for name, _ in usual.attributes}
    assert not re.search(f"[\x00\x1b{BIDI}]", page)
    for text in fields:
        assert unspaced(visible(text[:300])) in unspaced(hostile.text)


@settings(max_examples=10)
@given(FIELDS)
@example([""] * 7)
@example([LONG, *"abcdef"])
def test_show_prints_every_text_and_obeys_none(tmp_path: Path, fields: list[str]) -> None:
    run = run_of(tmp_path / "run", fields)
    out: Any = io.StringIO()
    Console(file=out, width=100, force_terminal=True, color_system=None).print(history_of(run, "r"))
    printed = out.getvalue()
    assert not re.search(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{BIDI}]", printed)
    # The second answer of a pair stands only in a column beside the first, broken into lines.
    for text in (*fields[:4], fields[5], fields[6]):
        assert unspaced(visible(text)) in unspaced(printed)
