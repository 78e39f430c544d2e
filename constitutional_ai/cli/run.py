"""Define ``cai run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from constitutional_ai.cli import completion
from constitutional_ai.cli.app import (
    echo,
    quiet_libraries,
    terminal,
)
from constitutional_ai.runs import layout

if TYPE_CHECKING:
    pass


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
        workers_on(on, workers, gpus, settings.out, bars.say) as make_shards,
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
