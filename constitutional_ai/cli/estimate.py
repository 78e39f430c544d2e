"""Define ``cai estimate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constitutional_ai.cli import completion
from constitutional_ai.cli.app import (
    PATH,
    echo,
    json_option,
    print_json,
    quiet_libraries,
    refuse_to_overwrite,
    terminal,
)

if TYPE_CHECKING:
    from rich.table import Table

    from constitutional_ai.estimate.count_work import Estimate
    from constitutional_ai.recipes.recipe import Recipe


@click.command()
@click.argument("recipe", shell_complete=completion.recipes)
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=completion.keys)
@click.option(
    "--like", type=PATH, metavar="RUN", help="A run of the same settings, to scale its tokens and times."
)
@click.option(
    "--measure", is_flag=True, help="Try a few records and two steps of each training on this machine: minutes."
)
@click.option(
    "--rates", type=PATH, metavar="FILE", help="Rates and prices of other machines, which you measured."
)
@click.option("--price-in", type=click.FloatRange(min=0), help="Price of a million prompt tokens of a server.")
@click.option(
    "--price-out", type=click.FloatRange(min=0), help="Price of a million generated tokens of a server."
)
@click.option("--out", type=PATH, help="A JSON file for the results.")
@json_option
def estimate(
    recipe: str,
    changes: tuple[str, ...],
    like: Path | None,
    measure: bool,
    rates: Path | None,
    price_in: float | None,
    price_out: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Estimate the cost of RECIPE before running it, stage by stage: calls, tokens, time, memory, disk and money.

    Calls, optimiser steps and the answers that RL samples are counted from the recipe. Tokens and times come from one
    of three: --like RUN, a run of the same models and settings, such as a pilot with low limits; --measure, a few
    records and steps with the recipe's own models on this machine; or --rates FILE, a table of rates of the machines
    that the run will have, for example for models of 8B and 70B. Amounts of money need both prices of a server, or
    those in the table. docs/estimate.md says how all is computed.
    """
    from constitutional_ai.cli.next_steps import program
    from constitutional_ai.errors import InputError
    from constitutional_ai.estimate.estimate_cost import estimate as estimated
    from constitutional_ai.estimate.estimate_cost import priced, write
    from constitutional_ai.recipes.recipe_file import load_recipe

    if (price_in is None) != (price_out is None):
        raise InputError("one price is missing: give both --price-in and --price-out.")
    if sum(map(bool, (like, measure, rates))) > 1:
        raise InputError("tokens and times have one source: give only one of --like, --measure and --rates.")
    prices = None if price_in is None or price_out is None else (price_in, price_out)
    if rates and prices:
        raise InputError("prices stand in the file of --rates: write price_read and price_written there.")
    refuse_to_overwrite(out)
    settings, remarks = load_recipe(recipe, changes), list[str]()
    if rates:
        result, remarks = _by_rates(settings, rates)
    elif measure:
        result = priced(_measured(settings), prices)
    else:
        result = estimated(settings, prices=prices, like=like)
    if out:
        write(out, result)
    if as_json:
        print_json({"stages": [asdict(one) for one in result]})
        return
    console = terminal()
    console.print(_table(result))
    for note in [*dict.fromkeys(one.note for one in result if one.note), *remarks]:
        console.print(note, style="dim")
    if not (like or measure or rates):
        console.print(UNKNOWN.format(cai=program(), recipe=recipe), style="dim")


def _measured(recipe: Recipe) -> list[Estimate]:
    """Return what a short measurement of this machine gives. Standard error names each stage."""
    from functools import partial

    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.control import apply_control
    from constitutional_ai.estimate.count_work import count_work
    from constitutional_ai.estimate.measure_here import measure

    quiet_libraries()
    constitution = apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    counted = [one for one in count_work(recipe) if one.records]
    return measure(recipe, counted, constitution, partial(echo, err=True))


def _by_rates(recipe: Recipe, file: Path) -> tuple[list[Estimate], list[str]]:
    """Return the estimates by a table of rates, and sentences about memory and disk."""
    from constitutional_ai.estimate.own_rates import checkpoints, estimate_by_rates, largest_gpus
    from constitutional_ai.estimate.rate_table import load_rates

    table = load_rates(file)
    result = estimate_by_rates(recipe, table)
    remarks = [largest_gpus(result, table)]
    if size := checkpoints(recipe, table):
        remarks.append(
            f"While the largest training lasts, its checkpoints take {size / 1e9:,.0f} GB of disk more."
        )
    return result, [remark for remark in remarks if remark]


UNKNOWN = """\
Tokens, time, memory and money are not known before something has run, because they hang on this machine and on how long
the answers are. A few records and steps on this machine show them in minutes, a pilot more exactly:
  {cai} estimate {recipe} --measure
  {cai} run {recipe} out=runs/pilot prompts.red_team.limit=40 prompts.helpful.limit=40
  {cai} estimate {recipe} --like runs/pilot
For other machines, give their rates: {cai} estimate {recipe} --rates FILE (docs/estimate.md)."""


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.3g} GB"


def _table(estimates: Sequence[Estimate]) -> Table:
    """Return a table of the stages and their sum; a sum with an unknown part is unknown.

    The sum of memory is that of the stage that takes the most. Columns of which nothing is known are left out.
    """
    from rich.table import Column, Table

    from constitutional_ai.report.page.formatting import duration

    columns: dict[str, tuple[Callable[[Estimate], Any], Callable[[Any], str]]] = {
        "records": (lambda one: one.records, "{:,}".format),
        "calls": (lambda one: sum(one.calls.values()), "{:,}".format),
        "steps": (lambda one: one.steps, "{:,}".format),
        "sampled": (lambda one: one.sampled, "{:,}".format),
        "tokens read": (lambda one: one.read, "{:,}".format),
        "written": (lambda one: one.written, "{:,}".format),
        "trained": (lambda one: one.trained, "{:,}".format),
        "GPU hours": (lambda one: one.gpu_hours, "{:,.1f}".format),
        "time": (lambda one: one.seconds, duration),
        "memory": (lambda one: one.memory, _gigabytes),
        "disk": (lambda one: one.disk, _gigabytes),
        "cost": (lambda one: one.cost, "{:,.2f}".format),
    }
    names, cells = ["stage"], [[one.stage for one in estimates] + ["all"]]
    for name, (value, form) in columns.items():
        values = [value(one) for one in estimates]
        if any(each is not None for each in values):
            total = None if None in values else max(values) if name == "memory" else sum(values)
            names.append(name)
            cells.append(["–" if each is None else form(each) for each in (*values, total)])
    heads = [Column(name, justify="right", no_wrap=True) for name in names[1:]]
    table = Table(names[0], *heads, box=None)
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table
