from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.intervals import mean, paired_difference, rate
from cai.records import Metric


def test_nothing_measured_is_none_and_not_zero() -> None:
    for metric in (rate("x", "m", []), mean("x", "m", []), paired_difference("x", "m", [], [])):
        assert metric == Metric("x", "m", None, None, None, 0)


def test_a_rate_has_wilsons_interval() -> None:
    # z = 1.96, p = 8/10, n = 10: centre (p + z²/2n) / (1 + z²/n) = 0.7167, half width 0.2266.
    metric = rate("x", "m", [True] * 8 + [False] * 2)
    assert (metric.value, metric.count) == (0.8, 10)
    assert (metric.low, metric.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


def test_a_mean_has_students_interval() -> None:
    # sd = 1, n = 4, t(0.975, 3) = 3.1824: 2 ± 3.1824 · sqrt(2/3) / 2.
    metric = mean("x", "m", [1.0, 2.0, 2.0, 3.0])
    half = 3.18245 * (2 / 3) ** 0.5 / 2
    assert (metric.value, metric.low, metric.high) == pytest.approx((2.0, 2 - half, 2 + half), abs=1e-4)


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0, 3.0]])
def test_no_interval_where_nothing_varies(values: list[float]) -> None:
    assert mean("x", "m", values) == Metric("x", "m", 3.0, None, None, len(values))


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_a_rate_lies_inside_its_interval_and_that_inside_0_and_1(outcomes: list[bool]) -> None:
    metric = rate("x", "m", outcomes)
    assert 0 <= metric.low <= metric.value + 1e-12
    assert metric.value - 1e-12 <= metric.high <= 1


def test_a_paired_difference_is_after_minus_before() -> None:
    assert paired_difference("x", "m", [1.0, 2.0], [2.0, 5.0]).value == 2.0


def test_pairs_that_do_not_match_are_a_bug() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_difference("x", "m", [1.0], [2.0, 5.0])
