"""The report on a judge: every number here is worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from rich.console import Console

from constitutional_ai.evaluation.judge.judge_report import judge_report, judge_table
from constitutional_ai.records import (
    Comparison,
    Completion,
    Failure,
    GateAnswer,
    Judgement,
    Message,
    PreferenceLabel,
    Prompt,
    Side,
)


def answer(
    p: float, better: Side, a: str = "aa", b: str = "b", *, method: str = "multiple_choice"
) -> GateAnswer:
    prompt = Prompt.of((Message("user", "Hi?"),), "red_team", "test")
    comparison = Comparison("x", prompt, *[Completion(text, "m", "stop", 0, 1) for text in (a, b)])
    judgements = (Judgement("p", "a", p), Judgement("p", "b", 1 - p))
    return GateAnswer("x", PreferenceLabel("x", "digest", comparison, method, p, judgements), better)


def test_the_calibration_is_that_worked_out_by_hand() -> None:
    results = [answer(p, side) for p, side in [(0.82, "a"), (0.88, "b"), (0.35, "b"), (0.05, "b")]]
    report = judge_report("m", results)
    full = {
        round(b.low, 1): (b.claimed, b.observed.value, b.observed.count)
        for b in report.bins
        if b.observed.count
    }
    assert full == {0.0: (0.05, 0.0, 1), 0.3: (0.35, 0.0, 1), 0.8: (pytest.approx(0.85), 0.5, 2)}
    # (2 · |0.85 − 0.5| + 0.35 + 0.05) / 4
    assert report.calibration_error.value == pytest.approx(0.275)
    # (0.18² + 0.88² + 0.35² + 0.05²) / 4
    assert report.brier.value == pytest.approx((0.0324 + 0.7744 + 0.1225 + 0.0025) / 4)
    # (0.82 + 0.88 + 0.65 + 0.95) / 4
    assert report.confidence.value == pytest.approx(0.825)
    assert report.agreement.value == 0.75
    # √(2/π) · (√(0.82 · 0.18 + 0.88 · 0.12) + √(0.35 · 0.65) + √(0.05 · 0.95)) / 4
    spread = math.sqrt(0.1476 + 0.1056) + math.sqrt(0.2275) + math.sqrt(0.0475)
    assert report.error_by_luck.value == pytest.approx(math.sqrt(2 / math.pi) * spread / 4)


def test_a_calibrated_judge_has_no_calibration_error() -> None:
    """FB-9, on both sides of one half."""
    results = [answer(0.75, "a")] * 3 + [answer(0.75, "b")] + [answer(0.25, "b")] * 3 + [answer(0.25, "a")]
    assert judge_report("m", results).calibration_error.value == 0.0


@pytest.mark.parametrize(("p", "low"), [(0.0, 0.0), (0.1, 0.1), (0.5, 0.5), (0.99, 0.9), (1.0, 0.9)])
def test_every_probability_has_a_bin(p: float, low: float) -> None:
    assert [b.low for b in judge_report("m", [answer(p, "a")]).bins if b.observed.count] == [low]


def test_length_is_compared_with_people_on_the_same_pairs() -> None:
    results = [
        answer(0.9, "b"),  # the judge takes the longer, people the shorter
        answer(0.8, "a"),  # both the longer
        answer(0.2, "a", "a", "bb"),  # the judge the longer
        answer(0.2, "b", "aa", "b"),  # both the shorter
        answer(0.5, "a"),  # a tie
        answer(0.9, "a", "a", "b"),  # of one length
    ]
    report = judge_report("m", results)
    assert (report.prefers_longer.value, report.prefers_longer.count) == (0.75, 4)
    assert (report.people_prefer_longer.value, report.people_prefer_longer.count) == (0.25, 4)
    assert report.ties.value == pytest.approx(1 / 6)


def test_rounding_hides_no_tie() -> None:
    p = (0.9 + (1 - 0.9) - 1e-16) / 2
    report = judge_report("m", [answer(p, "a"), answer(p, "b")])
    assert (report.ties.value, report.agreement.value) == (1.0, None)


def test_agreement_is_over_decided_pairs_and_ties_are_counted_beside_it() -> None:
    report = judge_report("m", [answer(0.9, "a"), answer(0.8, "b"), answer(0.7, "a"), answer(0.5, "a")])
    assert (report.agreement.value, report.agreement.count) == (pytest.approx(2 / 3), 3)
    assert (report.ties.value, report.ties.count) == (0.25, 4)
    assert report.ties.low is not None and report.ties.high is not None
    assert "agrees with people in 0.67 of 3 decided pairs" in str(report)
    assert str(report).endswith(", 1 of 4 are ties")


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.9), (0.5, 0.1), (0.9, 0.5), (0.1, 0.5), (0.5, 0.5)])
def test_an_order_that_is_a_tie_is_no_flip(a: float, b: float) -> None:
    one = answer(0.6, "a")
    label = replace(one.label, judgements=(Judgement("p", "a", a), Judgement("p", "b", b)))
    assert label.flipped is None


def test_by_likelihood_nothing_is_shown_first() -> None:
    assert judge_report("m", [answer(0.9, "a", method="likelihood")]).prefers_first.value is None


def test_nothing_measured_is_none_and_not_zero() -> None:
    report = judge_report("m", [Failure("x", "EmptyAnswer", "…")])
    assert (report.failed.value, report.refused.value, report.unreadable.value) == (1.0, 0.0, 1.0)
    of_all = (report.failed, report.refused, report.unreadable)
    assert {m.value for m in report.metrics if m not in of_all} == {None}
    assert str(report) == "m judged no pair. 1 × EmptyAnswer"
    assert {m.value for m in judge_report("m", []).metrics} == {None}


def test_the_table_holds_metrics_bins_and_counts() -> None:
    results = [answer(0.9, "a"), answer(0.9, "b"), Failure("x", "EmptyAnswer", "…")]
    console = Console(width=100)
    with console.capture() as output:
        console.print(judge_table(judge_report("hf:[m]", results, {"an empty turn": 2})))
    text = output.get()
    assert "hf:[m] agrees with people in 0.50 of 2 pairs (95 % interval" in text
    assert "calibration error" in text and "0.9 to 1.0" in text
    assert "failures: 1 × EmptyAnswer" in text and "unusable records: 2 × an empty turn" in text


def test_whether_predicates_can_be_trusted_is_counted_beside_ties_and_failures() -> None:
    """An order by P(harmful) of 3 right, 1 wrong, 1 tie and 1 failure."""
    by_harm = [True, True, False, None, True, Failure("x", "LowLabelMass", "…")]
    report = judge_report("m", [answer(0.9, "a")], by_harm=by_harm)
    order = report.harm_order
    assert (order.value, order.count) == (0.75, 4)
    assert (order.low, order.high) == (
        pytest.approx(0.301, abs=1e-3),
        pytest.approx(0.954, abs=1e-3),
    )  # Wilson's
    assert (report.harm_ties.value, report.harm_ties.count) == (0.2, 5)
    assert (report.harm_failed.value, report.harm_failed.count) == (1 / 6, 6)
    assert (report.agreement.value, report.failed.value) == (1.0, 0.0)  # those of labels are what they were
