"""Define ``cai run`` and ``cai estimate``."""

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
from constitutional_ai.runs import layout

if TYPE_CHECKING:
    from rich.table import Table

    from constitutional_ai.stages.estimate_cost import Estimate


@click.command()
@click.argument("recipe", shell_complete=completion.recipes)
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=completion.keys)
@click.option("--until", type=click.Choice(layout.STAGES), metavar="STAGE", help="Stop after this stage.")
@click.option(
    "--redo", type=click.Choice(layout.STAGES), metavar="STAGE", help="Repeat this stage and all later ones."
)
@click.option(
    "--retry-failures",
    is_flag=True,
    help="Try the failed records of complete stages again; extend or repeat later stages.",
)
@click.option("--shard", metavar="I/N", help="Make only shard I of N of the stage that --until names.")
@click.option(
    "--on", metavar="ray|ray://HOST:PORT", help="Make the records on a Ray cluster, in --workers shards."
)
@click.option("--workers", type=click.IntRange(1, 4096), default=1, show_default=True, help="Workers of --on.")
@click.option(
    "--gpus",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="GPUs of each worker, or a share.",
)
def run(
    recipe: str,
    changes: tuple[str, ...],
    until: str | None,
    redo: str | None,
    retry_failures: bool,
    shard: str | None,
    on: str | None,
    workers: int,
    gpus: float,
) -> None:
    """Run RECIPE, or continue a run that was interrupted.

    RECIPE is a YAML file or a built-in recipe, by name (demo, paper, rlhf-helpful, rlhf-hh). KEY=VALUE changes any key
    of the recipe, for example revisions.rounds=2 or out=runs/mine.

    \b
    STAGE is one of 00-prompts, 01-responses, 02-revisions, 03-sl-cai-model, 04-comparisons,
    05-preference-labels, 06-preference-model, 07-rl-cai-model, 08-evaluation.
    00-prompts exists only if the recipe generates prompts.

    Where --retry-failures gives new records, 01-responses, 02-revisions and 05-preference-labels are extended by what
    follows from them, and other later stages are repeated; a message names them.

    --shard makes a part of 00-prompts, 01-responses, 02-revisions, 04-comparisons or 05-preference-labels, on any
    machine that sees the run's folder. The next run without --shard merges the shards, and so does cai merge.
    """
    from constitutional_ai.cli.many_machines import check_options, make_one_shard, workers_on
    from constitutional_ai.cli.next_steps import next_steps
    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.pipeline import run_pipeline
    from constitutional_ai.recipes.recipe_file import load_recipe
    from constitutional_ai.report.card import write_cards
    from constitutional_ai.report.page.page import write_report
    from constitutional_ai.stages.follow import follow
    from constitutional_ai.training import processes

    quiet_libraries()
    processes.use_own_device()
    if not processes.is_first():
        follow()
        processes.part_ways()
        return
    console = terminal()
    settings = load_recipe(recipe, changes)
    check_options(shard=shard, on=on, until=until, again=bool(redo or retry_failures))
    if shard and until:
        with processes.released():
            make_one_shard(settings, until, shard, console)
        return
    with (
        processes.released(),
        Bars(console) as bars,
        workers_on(on, workers, gpus, Path(settings.out), bars.say) as make_shards,
    ):
        finished = run_pipeline(
            settings,
            progress=bars,
            notify=bars.say,
            until=until,
            redo=redo,
            retry_failures=retry_failures,
            after_stage=write_cards,
            make_shards=make_shards,
        )
    if until is None or until == layout.STAGES[-1]:
        console.print(f"report: {write_report(finished)}")
        echo("\n".join(next_steps(finished)))
    else:
        done = "is complete" if finished.manifest(until) else "is not part of this recipe"
        console.print(f"{until} {done} in {finished.folder}.")
    processes.part_ways()


@click.command()
@click.argument("recipe", shell_complete=completion.recipes)
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=completion.keys)
@click.option(
    "--like", type=PATH, metavar="RUN", help="A run of the same settings, to scale its tokens and times."
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
    price_in: float | None,
    price_out: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Estimate the cost of RECIPE before running it, stage by stage: calls, tokens, time and money.

    Calls, optimiser steps and the answers that RL samples are counted from the recipe. Tokens and times need --like,
    with a run of the same models and settings: a pilot of the same recipe with low limits is enough. Amounts of money
    need both prices as well.
    """
    from constitutional_ai.cli.next_steps import program
    from constitutional_ai.errors import InputError
    from constitutional_ai.recipes.recipe_file import load_recipe
    from constitutional_ai.stages.estimate_cost import estimate as estimated
    from constitutional_ai.stages.estimate_cost import write

    if (price_in is None) != (price_out is None):
        raise InputError("one price is missing: give both --price-in and --price-out.")
    prices = None if price_in is None or price_out is None else (price_in, price_out)
    refuse_to_overwrite(out)
    result = estimated(load_recipe(recipe, changes), prices=prices, like=like)
    if out:
        write(out, result)
    if as_json:
        print_json({"stages": [asdict(one) for one in result]})
        return
    console = terminal()
    console.print(_table(result))
    for note in dict.fromkeys(one.note for one in result if one.note):
        console.print(note, style="dim")
    if like is None:
        console.print(UNKNOWN.format(cai=program(), recipe=recipe), style="dim")


UNKNOWN = """\
Tokens, time and money are not known before something has run, because they hang on this machine and on how long the
answers are. A pilot shows them:
  {cai} run {recipe} out=runs/pilot prompts.red_team.limit=40 prompts.helpful.limit=40
  {cai} estimate {recipe} --like runs/pilot
Memory is not estimated: the pilot, whose batches are those of the run, shows whether there is enough."""


def _table(estimates: Sequence[Estimate]) -> Table:
    """Return a table of the stages and their sum; a sum with an unknown part is unknown."""
    from rich.table import Column, Table

    from constitutional_ai.report.page.formatting import duration

    heads = ("records", "calls", "steps", "sampled", "tokens read", "written", "time", "cost")
    forms: tuple[Callable[[Any], str], ...] = (*["{:,}".format] * 6, duration, "{:,.2f}".format)
    rows: list[list[Any]] = [
        [
            *(one.records, sum(one.calls.values()), one.steps, one.sampled),
            *(one.read, one.written, one.seconds, one.cost),
        ]
        for one in estimates
    ]
    rows.append([None if None in column else sum(column) for column in zip(*rows, strict=True)])
    table = Table("stage", *[Column(head, justify="right", no_wrap=True) for head in heads], box=None)
    for name, row in zip([*[one.stage for one in estimates], "all"], rows, strict=True):
        table.add_row(name, *["–" if x is None else form(x) for form, x in zip(forms, row, strict=True)])
    return table
