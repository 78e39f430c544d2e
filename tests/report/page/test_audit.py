"""The judge's audit: what can be known of it at the gate, and what can be seen in its labels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from constitutional_ai.records import (
    Comparison,
    Failure,
    GateAnswer,
    Judgement,
    Metric,
    PreferenceLabel,
    Side,
)
from constitutional_ai.report.contents import Contents, read_contents
from constitutional_ai.report.page.audit import AuditRow, audit, gate_of, principles_of
from constitutional_ai.report.page.page import write_report
from constitutional_ai.runs.run import Run
from tests.report.conftest import RED, completion, write_rows
from tests.report.page.test_page import Elements


def judged(n: int, lengths: tuple[int, int], *said: tuple[str, Side, float]) -> PreferenceLabel:
    """A label of questions about a principle, by which side was shown first and how probable that it is better."""
    pair = Comparison(f"{n}", RED[0], completion("a" * lengths[0]), completion("b" * lengths[1]))
    asked = tuple(Judgement(name, first, p) for name, first, p in said)
    mean = sum(j.probability_a for j in asked) / len(asked)
    return PreferenceLabel(pair.id, "c", pair, "multiple_choice", mean, asked)


LABELS = (
    judged(0, (9, 1), ("x", "a", 0.9), ("x", "b", 0.1)),  # a, the longer, in both orders
    judged(1, (9, 1), ("x", "a", 0.7), ("y", "b", 0.8)),  # what is shown first, both times; b on the whole
    judged(2, (5, 5), ("y", "a", 0.5)),  # a tie
)


def rows(contents: Contents) -> dict[str, AuditRow]:
    return {row.label: row for row in audit(contents)}


def shown(metric: Metric | None) -> tuple[float | None, int]:
    assert metric
    return (None if metric.value is None else round(metric.value, 9), metric.count)


def test_the_habits_of_the_labels_are_those_worked_out_by_hand(run: Run) -> None:
    found = rows(replace(read_contents(run), labels=LABELS))
    assert shown(found["Tie"].labels) == (round(1 / 3, 9), 3)
    assert shown(found["Winner changes with the order"].labels) == (0.5, 2)
    # By pair: a half, and all. A tie has no winner.
    assert shown(found["The answer shown first wins"].labels) == (0.75, 2)
    assert shown(found["The longer answer wins"].labels) == (0.5, 2)
    assert shown(found["Clear"].labels) == (0.0, 3) and shown(found["Open"].labels) == (round(2 / 3, 9), 3)
    assert shown(found["Certainty"].labels) == (round((0.4 + 0.05 + 0) / 3, 9), 3)


def test_over_labels_nothing_is_said_that_needs_the_truth(run: Run) -> None:
    found = rows(read_contents(run))
    unknown = {name for name, row in found.items() if row.labels is None}
    assert unknown == {
        "Prefers the right answer",
        "Brier score",
        "Calibration error",
        "… expected by chance",
        "… and is the right one",
    }
    gate = tuple(GateAnswer(f"{n}", label, "a") for n, label in enumerate(LABELS))
    assert shown(rows(replace(read_contents(run), gate=gate))["Prefers the right answer"].gate) == (
        0.5,
        2,
    )


def test_a_failure_is_counted_and_is_no_label(run: Run) -> None:
    folder = run.folder / "05-preference-labels"
    write_rows(
        folder / "failures.jsonl", [Failure("1", "UnreadableAnswer", "?"), Failure("2", "ModelError", "?")]
    )
    write_rows(folder / "failed-gate.jsonl", [Failure("3", "UnreadableAnswer", "?")])
    found = rows(read_contents(run))
    assert shown(found["No label"].labels) == (round(2 / 6, 9), 6)
    assert shown(found["… unreadable answer"].labels) == (round(1 / 6, 9), 6)
    assert shown(found["No label"].gate) == shown(found["… unreadable answer"].gate) == (round(1 / 9, 9), 9)
    assert shown(found["… refused to judge"].labels) == (None, 0)  # it is asked for letters, not for words


def test_a_principle_is_audited_by_its_own_questions() -> None:
    x, y = principles_of(LABELS)
    assert (x.name, y.name) == ("x", "y")
    assert shown(x.decided) == (0.3, 2) and shown(x.flips) == (0.0, 1)
    assert shown(x.longer) == (1.0, 2) and shown(y.longer) == (0.0, 1)
    assert shown(x.first) == (0.75, 2)


def test_before_there_are_answers_there_is_no_audit(empty_run: Run) -> None:
    contents = read_contents(empty_run)
    assert audit(contents) == [] and gate_of(contents) is None


@pytest.mark.parametrize("said", ["Its biases", "The longer answer wins", "Calibration at the gate"])
def test_the_page_shows_it(run: Run, said: str) -> None:
    assert said in Elements(write_report(run).read_text()).text
