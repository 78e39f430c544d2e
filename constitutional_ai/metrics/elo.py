"""Elo ratings of models from matches between them, by joint maximum likelihood (EV-9; pitfall 23).

P(i beats j) = 1 / (1 + 10^((Eⱼ − Eᵢ) / 400)), and all ratings are fitted at once, so that the order of the matches is
nothing. Only differences mean anything: one model, the anchor, is the zero. The paper's is SL-CAI (EV-10; pitfall 22).
Helpfulness and harmlessness are rated apart, each from its own matches (EV-8).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from constitutional_ai.errors import InputError, did_you_mean
from constitutional_ai.metrics.bradley_terry import Array, fit
from constitutional_ai.records import Match, Metric

POINTS = 400 / math.log(10)
"""Elo points in one unit of log-odds, and so in one of a preference model's score: 174."""
TAILS = 0.025, 0.975


class Rating(NamedTuple):
    elo: Metric
    """Points above the anchor, their 95 % interval, and how many of the model's matches counted.

    An end of the interval is None where the resamples do not bound it, both where all resamples say the same: that is
    no certainty. The anchor has no interval.
    """
    error: float | None
    """Standard error in points, from the Fisher information."""
    unrated: str | None
    """Why there is no rating; None when there is one."""


@dataclass(frozen=True, slots=True)
class Ratings:
    anchor: str
    of: Mapping[str, Rating]
    """By model, in the order of their names."""
    prompts: int
    """On which matches counted: what a bootstrap draws from."""
    ties: int
    undecided: int
    """Matches in which nobody has chosen; they never count."""


def elo(
    matches: Sequence[Match],
    *,
    anchor: str,
    ties: Literal["discarded", "half"] = "discarded",
    prior_draws: float = 0.0,
    resamples: int = 0,
    seed: int = 0,
) -> Ratings:
    """Ratings of all models that played.

    ``ties`` are discarded, as in the paper, or are half a win for each side; the Fisher intervals are then wider than
    need be. ``resamples`` above 0, better 1000, gives percentiles of a bootstrap that draws whole prompts instead:
    the Fisher intervals take matches on one prompt for independent, and are too narrow when they are not.

    A model that won or lost everything has no finite rating, nor has a group that never lost to the others: it is
    unrated. ``prior_draws``, so many imagined draws between each two that have met, bounds all ratings of those whom
    matches connect, and pulls them together.

    Raises InputError when the anchor has not played, and for a match of a model with itself.
    """
    names = _names(matches, anchor)
    won = _Won.of(matches, names, ties == "half")
    wins, zero = won.table(), names.index(anchor)
    prior = prior_draws / 2 * (wins + wins.T > 0)
    strengths, errors = (POINTS * found[0] for found in fit((wins + prior)[None], zero))
    if resamples:
        resampled = won.resampled(resamples, np.random.default_rng(seed))
        low, high = _percentiles(POINTS * fit(resampled + prior, zero).strengths)
    else:
        low, high = (strengths + ndtri(tail) * errors for tail in TAILS)
    counts = (wins + wins.T).sum(1)
    ratings = {
        name: _rating(name, anchor, *map(float, numbers))
        for name, *numbers in zip(names, strengths, errors, low, high, counts, strict=True)
    }
    said = Counter(match.winner for match in matches)
    return Ratings(anchor, ratings, won.prompts, said["tie"], said[None])


def _names(matches: Sequence[Match], anchor: str) -> list[str]:
    for match in matches:
        if match.a == match.b:
            raise InputError(f"match '{match.id}' is between '{match.a}' and itself.")
    names = sorted({name for match in matches for name in (match.a, match.b)})
    if anchor not in names:
        raise InputError(f"the anchor '{anchor}' has played no match.{did_you_mean(anchor, names)}")
    return names


class _Won(NamedTuple):
    """Wins, one a row."""

    models: int
    prompts: int
    prompt: Array
    """Its number."""
    cell: Array
    """models × winner + loser."""
    weight: Array

    @classmethod
    def of(cls, matches: Sequence[Match], names: Sequence[str], halves: bool) -> _Won:
        number = {name: n for n, name in enumerate(names)}
        rows = list(_rows(matches, halves))
        prompts = {p: n for n, p in enumerate(sorted({row[0] for row in rows}))}
        return cls(
            len(names),
            len(prompts),
            np.array([prompts[prompt] for prompt, *_ in rows], dtype=int),
            np.array([len(names) * number[winner] + number[loser] for _, winner, loser, _ in rows], dtype=int),
            np.array([weight for *_, weight in rows], dtype=float),
        )

    def table(self, times: Array | None = None) -> Array:
        """How often row beat column; ``times`` says how often each prompt was drawn."""
        weight = self.weight if times is None else self.weight * times[self.prompt]
        return np.bincount(self.cell, weight, self.models**2).reshape(self.models, self.models)

    def resampled(self, count: int, draws: np.random.Generator) -> Array:
        drawn = (draws.integers(max(1, self.prompts), size=self.prompts) for _ in range(count))
        return np.stack([self.table(np.bincount(one, minlength=self.prompts)) for one in drawn])


def _rows(matches: Sequence[Match], halves: bool) -> Iterator[tuple[str, str, str, float]]:
    """Prompt, winner, loser and weight."""
    for match in matches:
        if match.winner == "a" or (match.winner == "tie" and halves):
            yield match.prompt, match.a, match.b, 1.0 if match.winner == "a" else 0.5
        if match.winner == "b" or (match.winner == "tie" and halves):
            yield match.prompt, match.b, match.a, 1.0 if match.winner == "b" else 0.5


def _percentiles(found: Array) -> tuple[Array, Array]:
    """Of each model over the resamples; what a resample does not know may lie at either end."""
    low, high = (
        np.sort(np.nan_to_num(found, nan=end, posinf=np.inf, neginf=-np.inf), 0) for end in (-np.inf, np.inf)
    )
    last = len(found) - 1
    return low[math.floor(TAILS[0] * last)], high[math.ceil(TAILS[1] * last)]


def _rating(
    name: str, anchor: str, points: float, error: float, low: float, high: float, count: float
) -> Rating:
    why = _why_unrated(points, anchor)
    if why or name == anchor:
        return Rating(Metric("elo", name, None if why else 0.0, None, None, round(count)), None, why)
    ends = (None, None) if math.isclose(low, high, abs_tol=1e-6) else (_finite(low), _finite(high))
    return Rating(Metric("elo", name, points, *ends, round(count)), error, None)


def _why_unrated(points: float, anchor: str) -> str | None:
    if math.isnan(points):
        return f"nothing compares it with {anchor}: no chain of wins leads from the one to the other"
    if math.isinf(points):
        way = f"from {anchor} to it" if points > 0 else f"from it to {anchor}"
        return f"its rating has no {'upper' if points > 0 else 'lower'} bound: no chain of wins leads {way}"
    return None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
