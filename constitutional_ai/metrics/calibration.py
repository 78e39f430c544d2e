"""How far stated probabilities can be believed: reliability, and the numbers that come of it (FB-9, PM-7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from constitutional_ai.metrics.intervals import mean, rate
from constitutional_ai.records import Metric

BINS = 10
FEWEST = 10
"""Fewer claims than this give no temperature."""
COLDEST = 5.0
"""The logarithm of a temperature is looked for between −5 and 5."""


class Claim(NamedTuple):
    claimed: float
    """A stated probability, in [0, 1]."""
    truth: float
    """1 or 0; or a probability, where no more than that is known. Numbers are then what can be expected."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Claims between ``low`` and ``high``."""

    low: float
    high: float
    claimed: float | None
    """Mean of what was claimed."""
    found: Metric
    """Mean of what is true."""


def bins(model: str, claims: Sequence[Claim], low: float = 0.0) -> tuple[Bin, ...]:
    """Tenths of [low, 1]; ``low`` is itself a tenth, and no claim lies below it."""
    return tuple(
        Bin(
            number / BINS,
            (number + 1) / BINS,
            sum(c.claimed for c in found) / len(found) if found else None,
            _found(model, [c.truth for c in found]),
        )
        for number, found in enumerate(_binned(claims))
        if number >= round(low * BINS)
    )


def _binned(claims: Sequence[Claim]) -> list[list[Claim]]:
    inside: list[list[Claim]] = [[] for _ in range(BINS)]
    for claim in claims:
        inside[min(int(claim.claimed * BINS), BINS - 1)].append(claim)
    return inside


def _found(model: str, truths: Sequence[float]) -> Metric:
    certain = all(t in (0, 1) for t in truths)
    return rate("found", model, [t == 1 for t in truths]) if certain else mean("found", model, truths)


def calibration_error(model: str, claims: Sequence[Claim]) -> Metric:
    """Mean distance of claimed and found over the bins, weighed by their counts. It has no interval."""
    distances = [abs(sum(c.claimed - c.truth for c in inside)) for inside in _binned(claims)]
    return _over("calibration_error", model, claims, distances)


def error_by_luck(model: str, claims: Sequence[Claim]) -> Metric:
    """The calibration error to expect of claims that are all true: few of them never lie on the line.

    E|found − claimed| of a bin is √(2/π) of its standard error. Soft truths scatter less, and this is their ceiling.
    """
    spreads = [sum(c.claimed * (1 - c.claimed) for c in inside) for inside in _binned(claims)]
    return _over("error_by_luck", model, claims, [math.sqrt(2 / math.pi * s) for s in spreads])


def _over(name: str, model: str, claims: Sequence[Claim], totals: Sequence[float]) -> Metric:
    value = sum(totals) / len(claims) if claims else None
    return Metric(name, model, value, None, None, len(claims))


def brier(model: str, claims: Sequence[Claim]) -> Metric:
    """Mean squared error, 0.25 for always saying one half. A soft truth p stands for 1 with p and for 0 with 1 − p."""
    return mean("brier_score", model, [t * (1 - c) ** 2 + (1 - t) * c**2 for c, t in claims])


def probability(log_odds: float) -> float:
    """The logistic function, for any finite number."""
    small = math.exp(-abs(log_odds))
    return (1.0 if log_odds >= 0 else small) / (1.0 + small)


def cross_entropy(log_odds: float, truth: float) -> float:
    """−truth·log σ(log_odds) − (1 − truth)·log σ(−log_odds), in nats (PM-4)."""
    return max(log_odds, 0.0) - truth * log_odds + math.log1p(math.exp(-abs(log_odds)))


def entropy(truth: float) -> float:
    """In nats: the cross-entropy that nothing can go below."""
    return -sum(p * math.log(p) for p in (truth, 1 - truth) if p > 0)


def temperature(log_odds: Sequence[float], truths: Sequence[float]) -> float | None:
    """What log-odds must be divided by to have the least cross-entropy: above 1 where they are too sure.

    None from fewer than 10, and where no number is best: every claim right and certain, or no better than a coin.
    """
    if len(truths) < FEWEST:
        return None
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        divisor = math.exp(log_temperature)
        return math.fsum(cross_entropy(x / divisor, t) for x, t in zip(log_odds, truths, strict=True))

    best = float(minimize_scalar(loss, bounds=(-COLDEST, COLDEST), method="bounded").x)
    # Where an end is as good, there is no best: the loss falls all the way, or has come to nothing before.
    return math.exp(best) if loss(best) < min(loss(-COLDEST), loss(COLDEST)) - 1e-6 else None


TIE = 1e-9
"""Nearer to one half than this is a tie: 0.9 and 1 − 0.9 do not average to 0.5 in floating point."""
