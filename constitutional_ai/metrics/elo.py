"""Compute Elo ratings of models from their matches, by joint maximum likelihood (EV-9; pitfall 23).

P(i beats j) = 1 / (1 + 10^((Eⱼ − Eᵢ) / 400)). All ratings are fitted at once, so the order of the matches has no
influence. Only differences mean anything: one model, the anchor, is fixed at 0. In the paper that is SL-CAI (EV-10;
pitfall 22). Helpfulness and harmlessness are rated separately, each from its own matches (EV-8).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

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
    matches: Sequence[Match], *, anchor: str, models: Iterable[str] = (), resamples: int = 0, seed: int = 0
) -> dict[str, EloRating]:
    """Return the ratings of ``models`` and all others that played, in the order of their names.

    Ties are discarded, as in the paper. With ``resamples`` above 0 (1000 is enough), intervals are percentiles of a
    bootstrap that draws whole prompts. Otherwise they are Fisher's, which are too narrow if matches on one prompt are
    not independent.

    A model that won or lost every match has no finite rating, and neither has a group that never lost to the others;
    such models are unrated.
    """
    names = sorted({anchor, *models, *(name for match in matches for name in (match.a, match.b))})
    table, *tables = _win_tables(matches, names, resamples, np.random.default_rng(seed))
    zero = names.index(anchor)
    strengths, errors = (POINTS * values[0] for values in fit(table[None], zero))
    if resamples:
        low, high = _percentiles(POINTS * fit(np.stack(tables), zero).strengths)
    else:
        low, high = (strengths + ndtri(tail) * errors for tail in TAILS)
    counts = (table + table.T).sum(1)
    return {
        name: _rating(name, anchor, *map(float, numbers))
        for name, *numbers in zip(names, strengths, errors, low, high, counts, strict=True)
    }


def _win_tables(
    matches: Sequence[Match], names: Sequence[str], resamples: int, draws: np.random.Generator
) -> list[Array]:
    """Return the wins of row over column [models, models]: all, then those of each sample of prompts.

    Prompts are drawn with replacement, each with all its wins.
    """
    number = {name: n for n, name in enumerate(names)}
    won = [match for match in matches if match.winner in ("a", "b")]
    sides = [(number[m.a], number[m.b]) if m.winner == "a" else (number[m.b], number[m.a]) for m in won]
    cell = np.array([len(names) * winner + loser for winner, loser in sides], int)
    prompts, prompt = np.unique([match.prompt for match in won], return_inverse=True)
    count, shape = len(prompts), (len(names), len(names))
    samples = (draws.integers(max(1, count), size=count) for _ in range(resamples))
    times = chain([np.ones(count)], (np.bincount(sample, minlength=count) for sample in samples))
    return [np.bincount(cell, one[prompt], math.prod(shape)).reshape(shape) for one in times]


def _percentiles(strengths: Array) -> tuple[Array, Array]:
    """Return the ends of each model's interval over the resamples [resamples, models].

    A resample that does not connect a model with the anchor could lie at either end, so it counts for both.
    """
    low, high = (np.where(np.isnan(strengths), end, strengths) for end in (-np.inf, np.inf))
    return np.quantile(low, TAILS[0], 0, method="lower"), np.quantile(high, TAILS[1], 0, method="higher")


def _rating(
    name: str, anchor: str, points: float, error: float, low: float, high: float, count: float
) -> EloRating:
    why = _why_unrated(points, anchor, count)
    alike = math.isclose(low, high, abs_tol=1e-6)
    ends = [None if alike or not math.isfinite(end) else end for end in (low, high)]
    metric = Metric("elo", name, None if why else points, ends[0], ends[1], round(count))
    return EloRating(metric, error if math.isfinite(error) else None, why)


def _why_unrated(points: float, anchor: str, count: float) -> str | None:
    if not count:
        return "it has won or lost no match"
    if math.isnan(points):
        return f"nothing compares it with {anchor}: no chain of wins leads from the one to the other"
    if math.isinf(points):
        way = f"from {anchor} to it" if points > 0 else f"from it to {anchor}"
        return f"its rating has no {'upper' if points > 0 else 'lower'} bound: no chain of wins leads {way}"
    return None
