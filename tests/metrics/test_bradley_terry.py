"""The fit against another, written plainly: the likelihood pair by pair, and a minimiser that knows no derivative."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from constitutional_ai.metrics.bradley_terry import fit
from constitutional_ai.metrics.elo import POINTS


def strengths_by_search(wins: np.ndarray) -> list[float]:
    """The strengths are in log-odds above the first player's."""
    matches = [(i, j, count) for (i, j), count in np.ndenumerate(wins) if count]

    def loss(free: np.ndarray) -> float:
        r = [0.0, *free]
        return sum(count * math.log1p(math.exp(r[j] - r[i])) for i, j, count in matches)

    return [0.0, *minimize(loss, np.zeros(len(wins) - 1), method="BFGS").x]


@st.composite
def connected(draw: st.DrawFn) -> np.ndarray:
    """Wins of 2 to 6 models in a ring, so that nobody is unbeaten, and others."""
    size = draw(st.integers(2, 6))
    wins = np.array(draw(st.lists(st.integers(0, 30), min_size=size**2, max_size=size**2)), float).reshape(
        size, size
    )
    np.fill_diagonal(wins, 0)
    return wins + np.roll(np.eye(size), 1, axis=1)


@given(connected())
def test_it_agrees_with_a_plain_search_to_half_a_point(wins: np.ndarray) -> None:
    found = fit(wins[None], 0).strengths[0]
    assert POINTS * found == pytest.approx(POINTS * np.array(strengths_by_search(wins)), abs=0.5)


@settings(max_examples=25)
@given(connected())
def test_it_agrees_with_another_library_to_half_a_point(wins: np.ndarray) -> None:
    """choix (Maystre) takes a list of winners and losers, and sets the mean to zero."""
    choix = pytest.importorskip("choix")
    matches = [pair for pair, count in np.ndenumerate(wins) for _ in range(int(count))]
    other = choix.opt_pairwise(len(wins), matches, alpha=0, tol=1e-10)
    found = POINTS * fit(wins[None], 0).strengths[0]
    assert found == pytest.approx(POINTS * (other - other[0]), abs=0.5)


@given(connected())
def test_each_model_has_won_as_often_as_it_should_have(wins: np.ndarray) -> None:
    """What a maximum of the likelihood means here."""
    r = fit(wins[None], 0).strengths[0]
    chances = 1 / (1 + np.exp(r[None, :] - r[:, None]))
    assert ((wins + wins.T) * chances).sum(1) == pytest.approx(wins.sum(1), abs=1e-6)


@given(st.lists(connected(), min_size=2, max_size=5))
def test_tables_of_one_stack_do_not_touch_each_other(tables: list[np.ndarray]) -> None:
    size = min(len(t) for t in tables)
    stack = np.stack([t[:size, :size] for t in tables])
    together = fit(stack, 0)
    for n, wins in enumerate(stack):
        alone = fit(wins[None], 0)
        assert together.strengths[n] == pytest.approx(alone.strengths[0], abs=1e-6, nan_ok=True)
        assert together.errors[n] == pytest.approx(alone.errors[0], rel=1e-6, nan_ok=True)


def test_errors_are_those_of_the_information_turned_over() -> None:
    """Three models that met 4 times each, all even: [[2, −1], [−1, 2]] turned over is [[2, 1], [1, 2]] / 3."""
    found = fit(np.array([[[0, 2, 2], [2, 0, 2], [2, 2, 0.0]]]), 0)
    assert found.strengths[0] == pytest.approx([0, 0, 0])
    assert found.errors[0] == pytest.approx([math.nan, math.sqrt(2 / 3), math.sqrt(2 / 3)], nan_ok=True)


@pytest.mark.parametrize("length", [2, 20])
@pytest.mark.parametrize("wins", [1e2, 1e5, 1e9])
def test_lopsided_counts_are_fitted_too(length: int, wins: float) -> None:
    """A chain in which each beat the next ``wins`` times and lost once."""
    table = wins * np.eye(length, k=1) + np.eye(length, k=-1)
    expected = -math.log(wins) * np.arange(length)
    assert fit(table[None], 0).strengths[0] == pytest.approx(expected)


def test_a_circle_in_which_whole_steps_overshoot_is_fitted_too() -> None:
    """Newton's steps, none cut, run off to where the information is singular."""
    table = np.array([[0, 0, 1e6, 0], [1e2, 0, 0, 0], [0, 0, 0, 1], [0, 1e5, 1e6, 0]])
    r = fit(table[None], 0).strengths[0]
    chances = 1 / (1 + np.exp(r[None, :] - r[:, None]))
    assert ((table + table.T) * chances).sum(1) == pytest.approx(table.sum(1), rel=1e-6)
