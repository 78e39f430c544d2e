"""Compute rates and means with a count and a 95 % interval. Values that were not measured are None, not 0.

No interval leaves the range that its quantity can have: a share lies in [0, 1], a length is not negative.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

from constitutional_ai.records import Metric

Range = tuple[float, float]
"""The lowest and the highest value that a quantity can have."""
UNBOUNDED: Range = (-math.inf, math.inf)
NOT_NEGATIVE: Range = (0.0, math.inf)
SHARE: Range = (0.0, 1.0)


def rate(name: str, model: str, outcomes: Sequence[bool]) -> Metric:
    """Return the share of True with Wilson's 95 % interval.

    >>> rate("objection_rate", "start", []).value is None
    True
    """
    if not outcomes:
        return Metric(name, model, None, None, None, 0)
    from scipy.stats import binomtest

    interval = binomtest(sum(outcomes), len(outcomes)).proportion_ci(method="wilson")
    value = sum(outcomes) / len(outcomes)
    return Metric(name, model, value, float(interval.low), float(interval.high), len(outcomes))


def decided(outcomes: Iterable[bool | None]) -> list[bool]:
    """Return the outcomes without ties, which are None.

    >>> decided([True, None, False])
    [True, False]
    """
    return [outcome for outcome in outcomes if outcome is not None]


def ties(name: str, model: str, outcomes: Sequence[bool | None]) -> Metric:
    """Return the share of ties, which are None, with Wilson's 95 % interval."""
    return rate(name, model, [outcome is None for outcome in outcomes])


def mean(name: str, model: str, values: Sequence[float], *, within: Range) -> Metric:
    """Return the mean with Student's 95 % interval; no interval for fewer than two values, or if all are equal.

    Every value lies ``within`` a range, and so does the true mean. The interval is cut to it, which costs no coverage.

    >>> mean("prefers_first", "judge", [0.9, 1.0, 1.0], within=SHARE).high
    1.0
    """
    if not values:
        return Metric(name, model, None, None, None, 0)
    centre = sum(values) / len(values)
    if len(set(values)) < 2:
        return Metric(name, model, centre, None, None, len(values))
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    if not half:  # the values are so close that their squared distances round to 0
        return Metric(name, model, centre, None, None, len(values))
    low, high = max(centre - half, within[0]), min(centre + half, within[1])
    return Metric(name, model, centre, low, high, len(values))


def range_of_differences(within: Range) -> Range:
    """Return the range of the difference of two values that lie ``within`` a range.

    >>> range_of_differences(SHARE)
    (-1.0, 1.0)
    """
    widest = within[1] - within[0]
    return -widest, widest


def paired_difference(
    name: str, model: str, before: Sequence[float], after: Sequence[float], *, within: Range
) -> Metric:
    """Return the mean of ``after - before`` over the same prompts, with Student's 95 % interval.

    ``within`` is the range of the values before and after, not that of their differences.
    """
    differences = [a - b for a, b in zip(after, before, strict=True)]
    return mean(name, model, differences, within=range_of_differences(within))


def cluster_bootstrap(
    name: str, model: str, values: Sequence[float], clusters: Sequence[Hashable], *, seed: int
) -> Metric:
    """Return the mean with a bootstrap 95 % interval (BCa) that draws whole clusters with replacement.

    Use it for items that are not independent, such as pairs of answers to one context (pitfall 26); other intervals are
    then too narrow. BCa corrects for skew, which is large for accuracies near 1. There is no interval for fewer than
    two clusters, or if all have the same mean. Below about 30 clusters it is too narrow. The order of the items changes
    nothing.
    """
    inside: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        inside[cluster].append(value)
    if not values:
        return Metric(name, model, None, None, None, 0, clusters=0)
    totals, sizes = zip(*sorted((math.fsum(group), len(group)) for group in inside.values()), strict=True)
    low, high = _bca_interval(totals, sizes, seed)
    return Metric(name, model, math.fsum(values) / len(values), low, high, len(values), clusters=len(inside))


def _bca_interval(
    totals: Sequence[float], sizes: Sequence[int], seed: int
) -> tuple[float | None, float | None]:
    if len({total / size for total, size in zip(totals, sizes, strict=True)}) < 2:
        return None, None
    from scipy.stats import bootstrap

    interval = bootstrap(
        (totals, sizes),
        lambda total, size, axis: total.sum(axis) / size.sum(axis),
        paired=True,
        vectorized=True,
        batch=1000,  # a draw of 10,000 clusters holds 80 kB
        rng=seed,
    ).confidence_interval
    return float(interval.low), float(interval.high)


def share(name: str, model: str, outcomes: Sequence[bool], groups: Sequence[Hashable], *, seed: int) -> Metric:
    """Return the share of True, with a bootstrap 95 % interval that draws whole groups.

    If all outcomes are equal, a bootstrap has no spread. The interval is then Wilson's, with each group as one outcome:
    none of 60 answers to 20 prompts is no more evidence than none of 20.

    >>> share("objection_rate", "start", [False] * 60, [n // 3 for n in range(60)], seed=0).high < 0.17
    True
    """
    metric = cluster_bootstrap(name, model, outcomes, groups, seed=seed)
    if len(set(outcomes)) != 1:
        return metric
    alike = rate(name, model, [bool(outcomes[0])] * len(set(groups)))
    return replace(metric, low=alike.low, high=alike.high)
