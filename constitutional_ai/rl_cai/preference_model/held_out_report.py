"""Measure a preference model on pairs that it was not trained on (PM-6, PM-7, pitfall 22).

Answer a is the pair's chosen one, and the difference of two scores is the log-odds that it is better. Each claim is
about the answer that the model prefers, so it lies between 0.5 and 1. An AI's soft label p means that a is better with
probability p. Calibration error and Brier score are then expected values, and the cross-entropy cannot fall below the
labels' own entropy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

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
from constitutional_ai.metrics.intervals import NOT_NEGATIVE, decided, mean, rate, ties
from constitutional_ai.records import TIE, Metric, is_tie

ALL = "all"


class Scored(NamedTuple):
    """A held-out pair with its scores."""

    source: str
    label: float
    """P(a is better)."""
    scores: tuple[float, float]
    """The scores of a and of b."""
    lengths: tuple[int, int]
    """The lengths of a and of b, in characters."""

    @classmethod
    def of(cls, row: dict[str, Any], scores: tuple[float, float]) -> Scored:
        lengths = len(row["chosen"][0]["content"]), len(row["rejected"][0]["content"])
        return cls(row["source"], row["p_chosen"], scores, lengths)

    @property
    def log_odds(self) -> float:
        return self.scores[0] - self.scores[1]

    @property
    def tied(self) -> bool:
        """Whether both answers have the same score."""
        return abs(self.log_odds) < TIE

    @property
    def claim(self) -> Claim:
        """The probability of the answer that the model prefers, and P(it is better): one half if it prefers neither."""
        if self.tied:
            return Claim(0.5, 0.5)
        return Claim(probability(abs(self.log_odds)), self.label if self.log_odds > 0 else 1 - self.label)

    @property
    def agrees(self) -> bool | None:
        """Whether the answer that the label prefers has the higher score; None if either prefers neither answer."""
        if self.tied or is_tie(self.label):
            return None
        return (self.log_odds > 0) == (self.label > 0.5)

    @property
    def better_is_longer(self) -> bool | None:
        """Whether the better answer is the longer one; None if both have the same length."""
        a, b = self.lengths
        return None if a == b else (a > b) == (self.label > 0.5)


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Measurements on one source of pairs, or on all pairs."""

    source: str
    pairs: int
    accuracy: Metric
    """Share of pairs that the model ranks like their label, among pairs in which both prefer one answer."""
    longer_better: Metric
    """Accuracy on pairs whose better answer is the longer one."""
    shorter_better: Metric
    """Accuracy on pairs whose better answer is the shorter one; a model that only prefers length gets 0."""
    length_balanced: Metric
    """Mean of the previous two; a model that only prefers length gets 0.5. None if one of them is None."""
    cross_entropy: Metric
    """Cross-entropy in nats; a coin toss has 0.693 (PM-4)."""
    entropy_floor: Metric
    """Entropy of the labels, a lower bound of the cross-entropy."""
    brier: Metric
    calibration_error: Metric
    error_by_luck: Metric
    """Calibration error that a perfectly calibrated model would have by chance on this many pairs."""
    bins: tuple[Bin, ...]
    """Bins of width 0.1 from 0.5 to 1: how certain the model is, and how often it is right."""
    ties: Metric | None = None
    """Share of pairs with a label of 0.5 or two equal scores; None in reports of old runs."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and scale of a preference model's scores, to show them beside another model's (PM-6).

    RL uses the raw scores (RL-3). All fields are None if there were too few held-out pairs.
    """

    mean: float | None
    scale: float | None
    """Standard deviation of the scores."""
    count: int
    """Number of answers, two to a pair."""


@dataclass(frozen=True, slots=True)
class PreferenceModelReport:
    """The contents of ``report.json``."""

    sources: tuple[SourceReport, ...]
    """A report per source in order of name, then one of all pairs. Empty if no pair was held out."""
    spread: Spread


def pm_report(pairs: Sequence[Scored]) -> PreferenceModelReport:
    """Measure a preference model on scored held-out pairs."""
    names = sorted({p.source for p in pairs})
    sources = [_source(name, [p for p in pairs if p.source == name]) for name in names]
    return PreferenceModelReport(tuple([*sources, _source(ALL, pairs)] if pairs else []), _spread(pairs))


def _source(name: str, pairs: Sequence[Scored]) -> SourceReport:
    agrees, claims = [p.agrees for p in pairs], [p.claim for p in pairs]
    shorter, longer = (
        rate(f"{word}_better", name, decided(p.agrees for p in pairs if p.better_is_longer is wanted))
        for word, wanted in (("shorter", False), ("longer", True))
    )
    return SourceReport(
        source=name,
        pairs=len(pairs),
        accuracy=rate("accuracy", name, decided(agrees)),
        longer_better=longer,
        shorter_better=shorter,
        length_balanced=_mean_of_two("length_balanced", longer, shorter),
        cross_entropy=mean(
            "cross_entropy", name, [cross_entropy(p.log_odds, p.label) for p in pairs], within=NOT_NEGATIVE
        ),
        entropy_floor=mean("entropy_floor", name, [entropy(p.label) for p in pairs], within=(0.0, math.log(2))),
        brier=brier(name, claims),
        calibration_error=calibration_error(name, claims),
        error_by_luck=error_by_luck(name, claims),
        bins=bins(name, claims, low=0.5),
        ties=ties("ties", name, agrees),
    )


def _mean_of_two(name: str, one: Metric, other: Metric) -> Metric:
    """Return the mean of two shares of different pairs, with Newcombe's interval from their intervals."""
    count = one.count + other.count
    (v, low_v, high_v), (w, low_w, high_w) = [(m.value, m.low, m.high) for m in (one, other)]
    if v is None or w is None or low_v is None or low_w is None or high_v is None or high_w is None:
        return Metric(name, one.model, None, None, None, count)
    value = (v + w) / 2
    low, high = math.hypot(v - low_v, w - low_w) / 2, math.hypot(high_v - v, high_w - w) / 2
    return Metric(name, one.model, value, max(value - low, 0.0), min(value + high, 1.0), count)


def _spread(pairs: Sequence[Scored]) -> Spread:
    scores = [score for p in pairs for score in p.scores]
    return Spread(
        fmean(scores) if scores else None,
        stdev(scores) if scores else None,
        len(scores),
    )
