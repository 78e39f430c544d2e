"""Every rate has a count and an interval; nothing measured is None, not 0."""

from __future__ import annotations

from collections.abc import Sequence

from cai.records import Metric


def rate(name: str, model: str, outcomes: Sequence[bool]) -> Metric:
    """Share of True with Wilson's 95 % interval.

    >>> rate("objection_rate", "start", []).value is None
    True
    """
    if not outcomes:
        return Metric(name, model, None, None, None, 0)
    from scipy.stats import binomtest

    interval = binomtest(sum(outcomes), len(outcomes)).proportion_ci(method="wilson")
    value = sum(outcomes) / len(outcomes)
    return Metric(name, model, value, float(interval.low), float(interval.high), len(outcomes))


def mean(name: str, model: str, values: Sequence[float]) -> Metric:
    """Mean with Student's 95 % interval; no interval from fewer than two values, or when all are equal."""
    if not values:
        return Metric(name, model, None, None, None, 0)
    from scipy import stats

    centre = sum(values) / len(values)
    if len(set(values)) < 2:
        return Metric(name, model, centre, None, None, len(values))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=centre, scale=stats.sem(values))
    return Metric(name, model, centre, float(low), float(high), len(values))


def paired_difference(name: str, model: str, before: Sequence[float], after: Sequence[float]) -> Metric:
    """Mean of ``after - before`` over the same prompts, with Student's 95 % interval."""
    return mean(name, model, [a - b for a, b in zip(after, before, strict=True)])
