"""Compute Elo ratings of models from their matches, by joint maximum likelihood (EV-9; pitfall 23).

P(i beats j) = 1 / (1 + 10^((Eⱼ − Eᵢ) / 400)). All ratings are fitted at once, so the order of the matches has no
influence. Only differences mean anything: one model, the anchor, is fixed at 0. In the paper that is SL-CAI (EV-10;
pitfall 22). Helpfulness and harmlessness are rated separately, each from its own matches (EV-8).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from constitutional_ai.errors import InputError, did_you_mean
from constitutional_ai.metrics.bradley_terry import Array, fit
from constitutional_ai.records import Match, Metric

POINTS = 400 / math.log(10)
"""Elo points in one unit of log-odds, which is the unit of a preference model's score: 174."""
TAILS = 0.025, 0.975


class EloRating(NamedTuple):
    """A model's rating, or the reason why it has none."""

    elo: Metric
    """Points above the anchor, their 95 % interval, and the number of the model's matches that counted.

    An end of the interval is None if the resamples do not bound it. Both ends are None for the anchor, and if all
    resamples agree, because that does not mean certainty.
    """
    error: float | None
    """Standard error in points, from the Fisher information."""
    unrated: str | None
    """Why there is no rating; None when there is one."""


def elo(
    matches: Sequence[Match],
    *,
    anchor: str,
    ties: Literal["discarded", "half"] = "discarded",
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, EloRating]:
    """Return the ratings of all models that played, in the order of their names.

    ``ties`` are discarded, as in the paper, or count half a win for each side; the Fisher intervals are then wider than
    necessary. With ``resamples`` above 0 (1000 is enough), intervals are percentiles of a bootstrap that draws whole
    prompts. Otherwise they are Fisher's, which are too narrow if matches on one prompt are not independent.

    A model that won or lost every match has no finite rating, and neither has a group that never lost to the others;
    such models are unrated. Raises InputError if the anchor has not played, or a model plays against itself.
    """
    names = _names(matches, anchor)
    wins = _Wins(matches, names, ties == "half")
    table, zero = wins.table(), names.index(anchor)
    strengths, errors = (POINTS * values[0] for values in fit(table[None], zero))
    if resamples:
        tables = wins.resample(resamples, np.random.default_rng(seed))
        low, high = _percentiles(POINTS * fit(tables, zero).strengths)
    else:
        low, high = (strengths + ndtri(tail) * errors for tail in TAILS)
    counts = (table + table.T).sum(1)
    return {
        name: _rating(name, anchor, *map(float, numbers))
        for name, *numbers in zip(names, strengths, errors, low, high, counts, strict=True)
    }


def _names(matches: Sequence[Match], anchor: str) -> list[str]:
    for match in matches:
        if match.a == match.b:
            raise InputError(f"match '{match.id}' is between '{match.a}' and itself.")
    names = sorted({name for match in matches for name in (match.a, match.b)})
    if anchor not in names:
        raise InputError(f"the anchor '{anchor}' has played no match.{did_you_mean(anchor, names)}")
    return names


class _Wins:
    """All wins, as arrays with one item for each."""

    def __init__(self, matches: Sequence[Match], names: Sequence[str], halves: bool) -> None:
        """Take the wins of all matches; ``halves`` counts a tie as half a win for each side."""
        rows, self.models = list(_rows(matches, halves)), len(names)
        prompts, self.prompt = np.unique([row[0] for row in rows], return_inverse=True)
        self.prompts = len(prompts)
        number = {name: n for n, name in enumerate(names)}
        self.cell = np.array(
            [self.models * number[winner] + number[loser] for _, winner, loser, _ in rows], int
        )
        self.weight = np.array([weight for *_, weight in rows], float)

    def table(self, times: Array | None = None) -> Array:
        """Return the wins of row over column [models, models]; ``times`` is how often each prompt was drawn."""
        weight = self.weight if times is None else self.weight * times[self.prompt]
        return np.bincount(self.cell, weight, self.models**2).reshape(self.models, self.models)

    def resample(self, count: int, draws: np.random.Generator) -> Array:
        """Return tables [count, models, models], each from a sample of all prompts with replacement."""
        drawn = (draws.integers(max(1, self.prompts), size=self.prompts) for _ in range(count))
        return np.stack([self.table(np.bincount(one, minlength=self.prompts)) for one in drawn])


def _rows(matches: Sequence[Match], halves: bool) -> Iterator[tuple[str, str, str, float]]:
    """Yield prompt, winner, loser and weight of each win. A match without a choice has none."""
    for match in matches:
        if match.winner == "a" or (match.winner == "tie" and halves):
            yield match.prompt, match.a, match.b, 1.0 if match.winner == "a" else 0.5
        if match.winner == "b" or (match.winner == "tie" and halves):
            yield match.prompt, match.b, match.a, 1.0 if match.winner == "b" else 0.5


def _percentiles(strengths: Array) -> tuple[Array, Array]:
    """Return the ends of each model's interval over the resamples [resamples, models].

    A resample that does not connect a model with the anchor could lie at either end, so it counts for both.
    """
    low, high = (
        np.sort(np.nan_to_num(strengths, nan=end, posinf=np.inf, neginf=-np.inf), 0)
        for end in (-np.inf, np.inf)
    )
    last = len(strengths) - 1
    return low[math.floor(TAILS[0] * last)], high[math.ceil(TAILS[1] * last)]


def _rating(
    name: str, anchor: str, points: float, error: float, low: float, high: float, count: float
) -> EloRating:
    why = _why_unrated(points, anchor)
    if why or name == anchor:
        return EloRating(Metric("elo", name, None if why else 0.0, None, None, round(count)), None, why)
    alike = math.isclose(low, high, abs_tol=1e-6)
    ends = [None if alike or not math.isfinite(end) else end for end in (low, high)]
    return EloRating(Metric("elo", name, points, ends[0], ends[1], round(count)), error, None)


def _why_unrated(points: float, anchor: str) -> str | None:
    if math.isnan(points):
        return f"nothing compares it with {anchor}: no chain of wins leads from the one to the other"
    if math.isinf(points):
        way = f"from {anchor} to it" if points > 0 else f"from it to {anchor}"
        return f"its rating has no {'upper' if points > 0 else 'lower'} bound: no chain of wins leads {way}"
    return None
