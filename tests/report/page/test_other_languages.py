"""What the report says of answers that the detectors do not read, and of what they look for."""

from __future__ import annotations

from pathlib import Path

import pytest

from constitutional_ai.records import Answer, Verdict
from constitutional_ai.report.contents import read_contents
from constitutional_ai.report.page.frontier import frontier
from constitutional_ai.report.page.page import write_report
from constitutional_ai.report.page.rates import DEFINITIONS, READS
from constitutional_ai.runs.rows import adapter
from constitutional_ai.runs.run import Run
from tests.report.conftest import BENIGN, RED, answer, answers, write_evaluation
from tests.report.page.test_page import Elements
from tests.report.show.test_record_history import printed

SPANISH = "Lo siento, no puedo ayudarte con eso."
PAPER = Path(__file__).parents[3] / "docs" / "paper.md"


def unread(role: str) -> list[Answer]:
    return [answer(RED[0], role, SPANISH, 0.0), answer(BENIGN[0], role, SPANISH, 0.0)]


def in_spanish(run: Run) -> Run:
    """The run with two of SL-CAI's answers in Spanish."""
    replaced = {one.id: one for one in unread("sl-cai")}
    write_evaluation(run.folder, [replaced.get(one.id, one) for one in answers()])
    return run


def text_of(run: Run) -> str:
    return " ".join(Elements(write_report(run).read_text()).text.split())


def test_the_page_says_what_is_looked_for_and_how_many_answers_were_not_read(run: Run) -> None:
    said = text_of(run)
    assert all(f"{term}An answer that {words}" in said for term, words in DEFINITIONS)
    assert f"{READS}; 0 answers in other languages are not counted" in said
    said = text_of(in_spanish(run))
    assert f"{READS}; 2 answers in other languages are not counted" in said
    assert "not in English" in said


def test_an_answer_that_was_not_read_is_in_no_share(run: Run) -> None:
    found = frontier(read_contents(in_spanish(run)))
    assert found
    counts = {label: tuple(cell.count for cell in cells if cell) for label, cells in found.rows}
    assert counts == {"start": (3, 4), "sl-cai": (2, 3), "rl-cai": (3, 4)}
    assert "08-evaluation  sl-cai: not in English, so not read, score 0.00" in printed(run, RED[0].id)


def test_an_export_has_no_score_of_what_was_not_read(run: Run, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    from constitutional_ai.report.export.inspect_log import to_inspect

    logs = [log.read_eval_log(str(one.file)) for one in to_inspect(in_spanish(run), tmp_path / "out")]
    (samples,) = [one.samples for one in logs if one.eval.metadata["label"] == "sl-cai"]
    assert [sample.output.completion for sample in samples].count(SPANISH) == 2
    assert ["objects" in sample.scores for sample in samples].count(False) == 2


def test_records_of_before_are_read() -> None:
    read = adapter(Verdict).validate_json
    assert read('{"objects":true,"degenerate":null}') == Verdict(True, None)
    assert read('{"objects":null,"degenerate":null}') == Verdict(None, None)


def test_the_documentation_has_the_same_definitions() -> None:
    written = " ".join(PAPER.read_text(encoding="utf-8").split())
    assert all(f"*{term}*: {words}" in written for term, words in DEFINITIONS)
