"""Every number here is worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.metrics.calibration import (
    Bin,
    Claim,
    bins,
    brier,
    calibration_error,
    cross_entropy,
    entropy,
    error_by_luck,
    probability,
)
from constitutional_ai.runs.rows import adapter

CLAIMS = [Claim(0.6, 1), Claim(0.64, 0), Claim(0.95, 1), Claim(1.0, 1)]


def test_claims_are_compared_with_what_is_found_in_tenths() -> None:
    made = bins("m", CLAIMS, low=0.5)
    assert [(b.low, b.high) for b in made] == [(0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0)]
    assert [b.claimed for b in made] == [None, pytest.approx(0.62), None, None, pytest.approx(0.975)]
    assert [(b.observed.value, b.observed.count) for b in made] == [
        (None, 0),
        (0.5, 2),
        (None, 0),
        (None, 0),
        (1.0, 2),
    ]
    # (2 · |0.62 − 0.5| + 2 · |0.975 − 1|) / 4
    assert calibration_error("m", CLAIMS).value == pytest.approx(0.0725)
    # √(2/π) · (√(0.6 · 0.4 + 0.64 · 0.36) + √(0.95 · 0.05)) / 4
    luck = math.sqrt(2 / math.pi) * (math.sqrt(0.4704) + math.sqrt(0.0475)) / 4
    assert error_by_luck("m", CLAIMS).value == pytest.approx(luck)
    # (0.4² + 0.64² + 0.05² + 0) / 4
    assert brier("m", CLAIMS).value == pytest.approx((0.16 + 0.4096 + 0.0025) / 4)


def test_a_soft_truth_counts_for_what_is_known_of_it() -> None:
    # 0.8 claimed, 0.7 so: 0.7 · 0.2² + 0.3 · 0.8²
    assert brier("m", [Claim(0.8, 0.7)]).value == pytest.approx(0.028 + 0.192)
    assert calibration_error("m", [Claim(0.8, 0.7), Claim(0.84, 0.9)]).value == pytest.approx(0.02)
    (found,) = [b.observed for b in bins("m", [Claim(0.8, 0.7), Claim(0.84, 0.9)]) if b.observed.count]
    assert found.value == pytest.approx(0.8)
    # Student with one degree of freedom: 0.8 ± 12.706 · 0.1, which is more than a share can be.
    assert (found.low, found.high) == (0, 1)


def test_a_bin_of_an_old_report_is_read() -> None:
    (old,) = bins("m", [Claim(1.0, 1)], low=0.9)
    text = json.dumps(asdict(old)).replace('"observed": {', '"found": {')
    assert adapter(Bin).validate_json(text) == old


def test_nothing_claimed_is_no_number() -> None:
    assert {m.value for m in (calibration_error("m", []), error_by_luck("m", []), brier("m", []))} == {None}
    assert len(bins("m", [])) == 10


def test_cross_entropy_and_its_floor() -> None:
    assert cross_entropy(math.log(3), 0.8) == pytest.approx(-0.8 * math.log(0.75) - 0.2 * math.log(0.25))
    assert cross_entropy(0.0, 0.3) == pytest.approx(math.log(2))
    assert cross_entropy(1000.0, 1.0) == 0.0
    assert cross_entropy(1000.0, 0.0) == 1000.0  # no overflow
    assert (entropy(0.0), entropy(1.0), entropy(0.5)) == (0.0, 0.0, pytest.approx(math.log(2)))


@given(st.floats(-700, 700), st.floats(0, 1))
def test_nothing_goes_below_the_floor_and_the_sides_are_alike(log_odds: float, truth: float) -> None:
    assert cross_entropy(log_odds, truth) >= entropy(truth) - 1e-9
    assert cross_entropy(log_odds, truth) == pytest.approx(cross_entropy(-log_odds, 1 - truth), abs=1e-9)
    assert probability(log_odds) == pytest.approx(1 - probability(-log_odds), abs=1e-12)
