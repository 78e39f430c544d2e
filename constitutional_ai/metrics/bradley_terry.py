"""Fit the strengths behind Elo to how often each model beats each other one (Bradley and Terry 1952).

P(i beats j) = 1 / (1 + e^(rⱼ − rᵢ)). The likelihood has one maximum if a chain of wins leads from each model to every
other model (Ford 1957). Otherwise only models with a chain of wins to the anchor and back have finite strengths. The
fit is our own because it handles many tables at once: a thousand resamples of 20 models take 0.05 s. One table at a
time takes 5 times as long with choix, 8 with scipy and 25 with statsmodels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

Array = np.ndarray[Any, Any]
CLOSE = 1e-6
"""The fit ends with a step no longer than this, in log-odds. The error is then of the order of its square."""


class Fit(NamedTuple):
    """The fitted strengths of each table."""

    strengths: Array
    """Strengths above the anchor in log-odds, [tables, models].

    They are ±inf if the likelihood has no maximum, and NaN if nothing compares the model with the anchor.
    """
    errors: Array
    """Standard errors [tables, models], from the inverse Fisher information; NaN unless the strength is finite."""


def fit(wins: Array, anchor: int) -> Fit:
    """Maximise the likelihood of each table of ``wins`` [tables, models, models], row over column."""
    reaches = _reaches(wins)
    above, below = reaches[:, :, anchor], reaches[:, anchor, :]
    finite = above & below
    free = finite & (np.arange(wins.shape[1]) != anchor)
    ring = wins * (finite[:, :, None] & finite[:, None, :])  # in the limit, all other outcomes are certain
    r = _climbed(ring, free)
    variances = np.linalg.inv(_information(r, ring, free)).diagonal(axis1=1, axis2=2)
    endless = np.select([above, below], [np.inf, -np.inf], np.nan)
    return Fit(np.where(finite, r, endless), np.where(free, np.sqrt(variances), np.nan))


def _reaches(wins: Array) -> Array:
    """Return whether a chain of wins leads from row to column [tables, models, models]; each model reaches itself."""
    reaches = (wins > 0) | np.eye(wins.shape[1], dtype=bool)
    for _ in range(wins.shape[1].bit_length()):
        reaches = reaches @ reaches
    return reaches


def _climbed(wins: Array, free: Array) -> Array:
    """Maximise the likelihood by Newton's method.

    Each step is scaled by log(1 + m) / m, where m is the greatest change of a difference between two models that have
    met. Such a step raises the likelihood for any counts, because the logistic loss is self-concordant (Bach 2010).
    Near the maximum the factor is 1. Unscaled steps may overshoot to where all slopes are 0.
    """
    met = wins + wins.transpose(0, 2, 1) > 0
    r, longest = np.zeros(free.shape), np.inf
    while longest > CLOSE:
        missed = wins * expit(-_apart(r))  # wins − played × P(win) would round small counts away
        gradient = np.where(free, (missed - missed.transpose(0, 2, 1)).sum(2), 0.0)
        step = np.linalg.solve(_information(r, wins, free), gradient[:, :, None])[:, :, 0]
        moved = (np.abs(_apart(step)) * met).max((1, 2))
        r += step * (np.log1p(moved) / np.maximum(moved, CLOSE**2))[:, None]
        longest = moved.max()
    return r


def _apart(values: Array) -> Array:
    """Return the differences row − column."""
    return values[:, :, None] - values[:, None, :]


def _information(r: Array, wins: Array, free: Array) -> Array:
    """Return the Fisher information, with 1 on the diagonal for strengths that are not fitted."""
    apart, eye = _apart(r), np.eye(r.shape[1])
    shared = (wins + wins.transpose(0, 2, 1)) * expit(apart) * expit(-apart)
    laplacian = shared.sum(2)[:, :, None] * eye - shared
    return np.where(free[:, :, None] & free[:, None, :], laplacian, eye)
