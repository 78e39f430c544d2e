"""What a run cost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from constitutional_ai.report.contents import read_contents
from constitutional_ai.report.page.page import write_report
from constitutional_ai.report.page.tables import Cost, costs
from constitutional_ai.runs.run import Run
from tests.report.conftest import STAGES
from tests.report.page.test_page import Elements


def test_every_stage_has_its_share_and_all_of_them_their_sum(evaluated: Run) -> None:
    found = costs(read_contents(evaluated))  # each took 61 s, read 10 tokens and wrote 20
    assert [c.name for c in found] == [*STAGES, "evaluation/answers", "all"]
    *each, whole = found
    assert sum(c.share or 0 for c in each) == pytest.approx(1) and whole.share == 1
    count = len(STAGES) + 1
    assert (whole.seconds, whole.read, whole.written) == (61.0 * count, 10 * count, 20 * count)
    assert each[0].speed == pytest.approx(30 / 61)


def test_what_counts_no_tokens_has_no_speed() -> None:
    assert Cost("training", 60, 0, 0, 0.5).speed is None
    assert Cost("resumed when done", 0, 10, 10, 0.0).speed is None


def test_tokens_that_nobody_counted_are_not_nought(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    file = copy.stage("01-responses") / "stage.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"prompt_tokens": None, "completion_tokens": None})
    )
    *each, whole = costs(read_contents(copy))
    first = next(cost for cost in each if cost.name == "01-responses")
    assert (first.read, first.written, first.speed) == (None, None, None)
    assert (whole.read, whole.written) == (None, None)
    said = " ".join(Elements(write_report(copy).read_text()).text.split())
    assert "read or written, as far as they were counted" in said
    assert "as far as they were counted" not in Elements(write_report(run).read_text()).text


def test_before_a_stage_is_complete_nothing_has_a_cost(empty_run: Run) -> None:
    assert costs(read_contents(empty_run)) == []
    assert "No stage is complete yet." in write_report(empty_run).read_text()


def test_the_page_says_so(run: Run) -> None:
    said = " ".join(Elements(write_report(run).read_text()).text.split())
    assert "01-responses1 min 1 s11%10200" in said
