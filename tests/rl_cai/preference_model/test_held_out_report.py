"""Every number here is worked out by hand."""

from __future__ import annotations

import math
from dataclasses import asdict
from statistics import fmean, stdev

import pytest
from pydantic import TypeAdapter

from constitutional_ai.rl_cai.preference_model.held_out_report import (
    PreferenceModelReport,
    Scored,
    SourceReport,
    pm_report,
)

LN3, LN4, LN9 = math.log(3), math.log(4), math.log(9)
PAIRS = [
    Scored("ai", 0.8, (LN3, 0.0), (10, 5)),  # a is better and longer, and the model says so: 0.75
    Scored("ai", 0.3, (LN3, 0.0), (10, 5)),  # b is better and shorter; the model says a: 0.75
    Scored("ai", 0.5, (0.0, LN9), (4, 4)),  # a label that decides nothing; the model says b: 0.9
    Scored("people", 1.0, (2.0, 2.0), (7, 7)),  # the model cannot tell: 0.5
    Scored("people", 1.0, (LN4, 0.0), (3, 9)),  # a is better and shorter, and the model says so: 0.8
]


def source(name: str, report: PreferenceModelReport) -> SourceReport:
    return next(s for s in report.sources if s.source == name)


def test_each_source_is_reported_and_then_all() -> None:
    report = pm_report(PAIRS)
    assert [(s.source, s.pairs) for s in report.sources] == [("ai", 3), ("people", 2), ("all", 5)]


def test_accuracy_is_over_decided_pairs_and_ties_of_labels_and_scores_are_beside_it() -> None:
    found = {s.source: (s.accuracy.value, s.accuracy.count) for s in pm_report(PAIRS).sources}
    assert found == {"ai": (0.5, 2), "people": (1.0, 1), "all": (pytest.approx(2 / 3), 3)}
    ties = {s.source: (s.ties.value, s.ties.count) for s in pm_report(PAIRS).sources if s.ties}
    assert ties == {"ai": (pytest.approx(1 / 3), 3), "people": (0.5, 2), "all": (0.4, 5)}


def test_equal_scores_claim_one_half_whichever_answer_stands_first() -> None:
    """People's better answer always stands first, so "the first" would be right in every tie."""
    tied = source("people", pm_report([Scored("people", 1.0, (2.0, 2.0), (7, 7))] * 10))
    assert (tied.accuracy.value, tied.calibration_error.value, tied.brier.value) == (None, 0.0, 0.25)


def test_a_report_of_an_old_run_has_no_ties() -> None:
    old = asdict(pm_report(PAIRS))
    for one in old["sources"]:
        del one["ties"]
    assert {s.ties for s in TypeAdapter(PreferenceModelReport).validate_python(old).sources} == {None}


def test_length_is_balanced() -> None:
    report = pm_report(PAIRS)
    ai = source("ai", report)
    assert (ai.longer_better.value, ai.longer_better.count) == (1.0, 1)
    assert (ai.shorter_better.value, ai.shorter_better.count) == (0.0, 1)
    # Wilson: 1 of 1 is 0.2065 to 1, 0 of 1 is 0 to 0.7935; 0.5 ± √(0.7935² + 0²) / 2
    assert ai.length_balanced.value == 0.5
    assert ai.length_balanced.low == pytest.approx(0.5 - 0.7935 / 2, abs=1e-4)
    assert ai.length_balanced.high == pytest.approx(0.5 + 0.7935 / 2, abs=1e-4)
    people = source("people", report)
    assert (people.longer_better.value, people.length_balanced.value) == (None, None)
    assert source("all", report).length_balanced.value == pytest.approx((1.0 + 0.5) / 2)


def test_a_model_that_only_likes_length_is_no_better_than_a_coin() -> None:
    pairs = [Scored("ai", 0.9, (float(n), 5.0), (n, 5)) for n in (1, 2, 8, 9, 10)]
    found = source("ai", pm_report(pairs))
    assert (found.accuracy.value, found.length_balanced.value) == (0.6, 0.5)


def test_cross_entropy_brier_and_calibration() -> None:
    ai = source("ai", pm_report(PAIRS))
    expected = [
        -0.8 * math.log(0.75) - 0.2 * math.log(0.25),
        -0.3 * math.log(0.75) - 0.7 * math.log(0.25),
        -0.5 * math.log(0.1) - 0.5 * math.log(0.9),
    ]
    assert ai.cross_entropy.value == pytest.approx(fmean(expected))
    floor = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.8, 0.3, 0.5)]
    assert ai.entropy_floor.value == pytest.approx(fmean(floor))
    # Where a label is a truth that is half known: p · (1 − claim)² + (1 − p) · claim²
    assert ai.brier.value == pytest.approx(fmean([0.1625, 0.4125, 0.41]))
    # (|0.75 + 0.75 − 0.8 − 0.3| + |0.9 − 0.5|) / 3
    assert ai.calibration_error.value == pytest.approx(0.8 / 3)
    # √(2/π) · (√(2 · 0.75 · 0.25) + √(0.9 · 0.1)) / 3
    assert ai.error_by_luck.value == pytest.approx(math.sqrt(2 / math.pi) * (math.sqrt(0.375) + 0.3) / 3)
    people = source("people", pm_report(PAIRS))
    assert people.cross_entropy.value == pytest.approx((math.log(2) - math.log(0.8)) / 2)
    assert people.entropy_floor.value == 0.0


def test_reliability_is_read_from_the_side_that_the_model_prefers() -> None:
    pairs = [Scored("ai", p, (x, 0.0), (1, 2)) for p, x in ((0.9, 1.2), (0.6, 1.2), (0.1, -1.2), (0.0, 1.2))]
    found = {
        b.low: (b.claimed, b.observed.value, b.observed.count) for b in source("ai", pm_report(pairs)).bins
    }
    sure = 1 / (1 + math.exp(-1.2))  # 0.77; right with 0.9, 0.6, 0.9 and 0
    assert found.pop(0.7) == (pytest.approx(sure), pytest.approx(0.6), 4)
    assert set(found.values()) == {(None, None, 0)}


def test_which_answer_is_called_a_does_not_matter() -> None:
    turned = [Scored(p.source, 1 - p.label, p.scores[::-1], p.lengths[::-1]) for p in PAIRS]
    for one, other in zip(pm_report(PAIRS).sources, pm_report(turned).sources, strict=True):
        assert one.accuracy == other.accuracy
        assert one.length_balanced == other.length_balanced
        assert one.brier.value == pytest.approx(other.brier.value)
        assert one.calibration_error.value == pytest.approx(other.calibration_error.value)


def test_where_the_scores_lie() -> None:
    scores = [LN3, 0.0, LN3, 0.0, 0.0, LN9, 2.0, 2.0, LN4, 0.0]
    spread = pm_report(PAIRS).spread
    assert (spread.mean, spread.scale, spread.count) == (fmean(scores), stdev(scores), 10)


def test_without_held_out_pairs_there_is_nothing_to_report() -> None:
    report = pm_report([])
    assert report.sources == ()
    assert (report.spread.mean, report.spread.scale, report.spread.count) == (None, None, 0)


def test_a_row_is_read_with_its_lengths() -> None:
    row = {"source": "ai", "p_chosen": 0.4, "chosen": [{"content": "long"}], "rejected": [{"content": "no"}]}
    assert Scored.of(row, (1.0, 2.0)) == Scored("ai", 0.4, (1.0, 2.0), (4, 2))
