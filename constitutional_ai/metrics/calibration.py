"""Measure calibration: whether stated probabilities match frequencies (FB-9, PM-7).

Ties count: one half is a claim like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import AliasChoices, Field

from constitutional_ai.metrics.intervals import SHARE, mean, rate
from constitutional_ai.records import Metric

BINS = 10


class Claim(NamedTuple):
    """A stated probability and the outcome."""

    claimed: float
    """A stated probability, in [0, 1]."""
    truth: float
    """1 or 0, or a probability where the outcome is not known: results are then expected values."""


@dataclass(frozen=True, slots=True)
class Bin:
    """A summary of the claims between ``low`` and ``high``."""

    low: float
    high: float
    claimed: float | None
    """Mean claim."""
    observed: Annotated[Metric, Field(validation_alias=AliasChoices("observed", "found"))]
    """Mean truth. Reports of old runs call it ``found``."""


def bins(model: str, claims: Sequence[Claim], low: float = 0.0) -> tuple[Bin, ...]:
    """Sort claims into bins of width 0.1 over [low, 1]. ``low`` is a multiple of 0.1 and no greater than any claim."""
    return tuple(
        Bin(
            number / BINS,
            (number + 1) / BINS,
            sum(c.claimed for c in inside) / len(inside) if inside else None,
            _mean_truth(model, [c.truth for c in inside]),
        )
        for number, inside in enumerate(_binned(claims))
        if number >= round(low * BINS)
    )


def _binned(claims: Sequence[Claim]) -> list[list[Claim]]:
    inside: list[list[Claim]] = [[] for _ in range(BINS)]
    for claim in claims:
        inside[min(int(claim.claimed * BINS), BINS - 1)].append(claim)
    return inside


def _mean_truth(model: str, truths: Sequence[float]) -> Metric:
    certain = all(t in (0, 1) for t in truths)
    return (
        rate("found", model, [t == 1 for t in truths])
        if certain
        else mean("found", model, truths, within=SHARE)
    )


def calibration_error(model: str, claims: Sequence[Claim]) -> Metric:
    """Return the mean distance between claim and truth over the bins, weighted by count. It has no interval."""
    distances = [abs(sum(c.claimed - c.truth for c in inside)) for inside in _binned(claims)]
    return _over("calibration_error", model, claims, distances)


def error_by_luck(model: str, claims: Sequence[Claim]) -> Metric:
    """Return the calibration error that perfectly calibrated claims would have by chance.

    The expected |truth − claim| of a bin is √(2/π) times its standard error. For soft truths, which scatter less, this
    is an upper bound.
    """
    spreads = [sum(c.claimed * (1 - c.claimed) for c in inside) for inside in _binned(claims)]
    return _over("error_by_luck", model, claims, [math.sqrt(2 / math.pi * s) for s in spreads])


def _over(name: str, model: str, claims: Sequence[Claim], totals: Sequence[float]) -> Metric:
    value = sum(totals) / len(claims) if claims else None
    return Metric(name, model, value, None, None, len(claims))


def brier(model: str, claims: Sequence[Claim]) -> Metric:
    """Return the mean squared error, 0.25 if all claims are 0.5. A soft truth p is 1 with probability p."""
    return mean("brier_score", model, [t * (1 - c) ** 2 + (1 - t) * c**2 for c, t in claims], within=SHARE)


def probability(log_odds: float) -> float:
    """Return the logistic function of any finite number."""
    small = math.exp(-abs(log_odds))
    return (1.0 if log_odds >= 0 else small) / (1.0 + small)


def cross_entropy(log_odds: float, truth: float) -> float:
    """Return −truth·log σ(log_odds) − (1 − truth)·log σ(−log_odds), in nats (PM-4)."""
    return max(log_odds, 0.0) - truth * log_odds + math.log1p(math.exp(-abs(log_odds)))


def entropy(truth: float) -> float:
    """Return the entropy in nats, which is the lowest possible cross-entropy."""
    return -sum(p * math.log(p) for p in (truth, 1 - truth) if p > 0)
