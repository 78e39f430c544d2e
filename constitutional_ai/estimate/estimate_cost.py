"""Estimate what a run will cost: calls from its recipe, tokens and time from an earlier run of the same settings.

Only a run shows how long answers are and how fast a model is. If there is none yet, make a pilot: the same recipe with
low limits. A pilot that does not fill the models' batches takes more time for each record than the whole run will.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from constitutional_ai.estimate.count_work import FREE, Estimate, count_work
from constitutional_ai.estimate.earlier_run import scaled
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.runs.rows import write_atomically


def estimate(
    recipe: Recipe, *, prices: tuple[float, float] | None = None, like: Path | None = None
) -> list[Estimate]:
    """Estimate every stage of a recipe, in order.

    ``prices`` are those of a million tokens that a server reads, and of a million that it writes, in any currency.
    ``like`` is a run whose tokens and times are scaled by the amounts of work, except those of stages that other
    settings, prompts or constitutions shaped; counted numbers stay. Raises InputError if it is no run, or if a file of
    the recipe cannot be read.
    """
    estimates = [one for one in count_work(recipe) if one.records]
    if like:
        estimates = list(scaled(estimates, recipe, like))
    return priced(estimates, prices)


def priced(estimates: list[Estimate], prices: tuple[float, float] | None) -> list[Estimate]:
    """Return the estimates with the money that servers take, or as they are without prices: see ``estimate``."""
    return [replace(one, cost=_cost(one, *prices)) for one in estimates] if prices else estimates


def write(path: Path, estimates: Sequence[Estimate]) -> None:
    """Write the estimates as JSON."""
    write_atomically(path, json.dumps([asdict(one) for one in estimates], indent=1, ensure_ascii=False) + "\n")


def _cost(one: Estimate, price_read: float, price_written: float) -> float | None:
    """Return the price of the tokens of servers, whose share is that of the calls; None if it is unknown."""
    paid = sum(count for name, count in one.calls.items() if not name.startswith(FREE))
    if not paid:
        return 0.0
    if one.read is None or one.written is None:
        return None
    return paid / one.amount * (one.read * price_read + one.written * price_written) / 1e6
