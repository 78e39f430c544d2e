from __future__ import annotations

import random
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai.metrics.intervals import (
    NOT_NEGATIVE,
    SHARE,
    UNBOUNDED,
    Range,
    cluster_bootstrap,
    mean,
    paired_difference,
    rate,
)
from constitutional_ai.records import Metric


def test_nothing_measured_is_none_and_not_zero() -> None:
    for metric in (
        rate("x", "m", []),
        mean("x", "m", [], within=SHARE),
        paired_difference("x", "m", [], [], within=SHARE),
    ):
        assert metric == Metric("x", "m", None, None, None, 0)


def test_a_rate_has_wilsons_interval() -> None:
    # z = 1.96, p = 8/10, n = 10: centre (p + z²/2n) / (1 + z²/n) = 0.7167, half width 0.2266.
    metric = rate("x", "m", [True] * 8 + [False] * 2)
    assert (metric.value, metric.count) == (0.8, 10)
    assert (metric.low, metric.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


def test_a_mean_has_students_interval() -> None:
    # sd = 1, n = 4, t(0.975, 3) = 3.1824: 2 ± 3.1824 · sqrt(2/3) / 2.
    metric = mean("x", "m", [1.0, 2.0, 2.0, 3.0], within=UNBOUNDED)
    half = 3.18245 * (2 / 3) ** 0.5 / 2
    assert (metric.value, metric.low, metric.high) == pytest.approx((2.0, 2 - half, 2 + half), abs=1e-4)


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0, 3.0]])
def test_no_interval_where_nothing_varies(values: list[float]) -> None:
    assert mean("x", "m", values, within=UNBOUNDED) == Metric("x", "m", 3.0, None, None, len(values))


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_a_rate_lies_inside_its_interval_and_that_inside_0_and_1(outcomes: list[bool]) -> None:
    metric = rate("x", "m", outcomes)
    assert 0 <= metric.low <= metric.value + 1e-12
    assert metric.value - 1e-12 <= metric.high <= 1


@pytest.mark.parametrize("within", [SHARE, NOT_NEGATIVE, (0.0, 0.5)])
@given(st.lists(st.floats(0, 0.5), min_size=2, max_size=6))
def test_no_interval_of_a_mean_leaves_the_range_of_its_quantity(within: Range, values: list[float]) -> None:
    metric = mean("x", "m", values, within=within)
    if metric.low is not None and metric.high is not None:
        assert within[0] <= metric.low <= metric.value + 1e-12
        assert metric.value - 1e-12 <= metric.high <= within[1]


def test_the_range_is_what_keeps_an_interval_in_it() -> None:
    values = [0.9, 1.0, 1.0]
    assert mean("x", "m", values, within=UNBOUNDED).high > 1 == mean("x", "m", values, within=SHARE).high
    before, after = [0.0, 0.0, 0.1], [1.0, 1.0, 1.0]
    assert paired_difference("x", "m", before, after, within=UNBOUNDED).high > 1
    assert paired_difference("x", "m", before, after, within=SHARE).high == 1


def test_a_paired_difference_is_after_minus_before() -> None:
    assert paired_difference("x", "m", [1.0, 2.0], [2.0, 5.0], within=UNBOUNDED).value == 2.0


def test_pairs_that_do_not_match_are_a_bug() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_difference("x", "m", [1.0], [2.0, 5.0], within=UNBOUNDED)


def drawn(sizes: list[int], seed: int) -> tuple[list[float], list[int]]:
    """Right or wrong, by contexts that are easy or hard."""
    rng, values, clusters = random.Random(seed), [], []
    for cluster, size in enumerate(sizes):
        easy = rng.betavariate(2, 1)
        values += [float(rng.random() < easy) for _ in range(size)]
        clusters += [cluster] * size
    return values, clusters


SIZES = [1] * 60 + [3] * 32 + [6] * 8 + [15, 2]
"""Sizes of the contexts in the public HHH comparisons."""


def test_a_cluster_bootstrap_is_as_wide_as_the_spread_of_the_clusters() -> None:
    """Many clusters give nearly the normal interval of a ratio of sums: √(102/101 · Σ (total − mean · size)²) / n."""
    values, clusters = drawn(SIZES, 1)
    found = cluster_bootstrap("x", "m", values, clusters, seed=0)
    centre = sum(values) / len(values)
    residuals = [
        sum(v - centre for v, c in zip(values, clusters, strict=True) if c == k) for k in range(len(SIZES))
    ]
    half = NormalDist().inv_cdf(0.975) * (102 / 101 * sum(r**2 for r in residuals)) ** 0.5 / len(values)
    assert (found.value, found.count, found.clusters) == (centre, 221, 102)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)
    assert (found.low, found.high) == (
        pytest.approx(centre - half, abs=0.02),
        pytest.approx(centre + half, abs=0.02),
    )
    naive = rate("x", "m", [v == 1.0 for v in values])
    assert found.high - found.low > 1.2 * (naive.high - naive.low)


def test_saying_everything_four_times_over_is_no_more_evidence() -> None:
    values, clusters = drawn([1] * 40, 2)
    once, often = (cluster_bootstrap("x", "m", values * n, clusters * n, seed=0) for n in (1, 4))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert (once.count, often.count, often.clusters) == (40, 160, 40)


def test_where_nearly_all_is_right_the_interval_reaches_further_down_than_up() -> None:
    found = cluster_bootstrap("x", "m", [1.0] * 57 + [0.0] * 3, list(range(60)), seed=0)
    assert found.value - found.low > 1.2 * (found.high - found.value)
    assert found.high < 1


@pytest.mark.parametrize(
    ("values", "clusters", "groups"),
    [([1.0, 0.0], ["c", "c"], 1), ([1.0] * 4, [1, 2, 3, 3], 3), ([1.0, 0.0, 0.0, 1.0], [1, 1, 2, 2], 2)],
)
def test_a_bootstrap_of_nothing_that_varies_has_no_interval(
    values: list[float], clusters: list[int], groups: int
) -> None:
    found = cluster_bootstrap("x", "m", values, clusters, seed=0)
    assert found == Metric("x", "m", sum(values) / len(values), None, None, len(values), groups)
    assert cluster_bootstrap("x", "m", [], [], seed=0) == Metric("x", "m", None, None, None, 0, 0)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 4)), min_size=1),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_items_is_nothing(items: list[tuple[float, int]], rng: random.Random) -> None:
    one, other = (
        cluster_bootstrap("x", "m", *zip(*some, strict=True), seed=0)
        for some in (items, rng.sample(items, len(items)))
    )
    assert one == other
    if one.low is not None:
        assert 0 <= one.low <= one.high <= 1


def test_a_seed_draws_the_same_again_and_another_does_not() -> None:
    values, clusters = drawn(SIZES, 3)
    one, same, other = (cluster_bootstrap("x", "m", values, clusters, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
