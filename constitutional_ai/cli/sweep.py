"""Define ``cai sweep``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from constitutional_ai.cli.app import echo, quiet_libraries, terminal
from constitutional_ai.runs import layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from constitutional_ai.recipes.arms import Arm


@click.command()
@click.argument("recipe")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUES... out=FOLDER")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of a table.")
def sweep(recipe: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Run RECIPE once for every combination of values of any keys, and compare the runs.

    VALUES are separated by commas, such as control=null,empty, or a range of whole numbers, such as seed=0..2. A key
    with one value has it in all runs. Runs share the stages whose settings and inputs are the same; the same command
    continues a sweep that was interrupted, and one with more values adds runs.

    FOLDER has a run for each combination, and sweep.json, sweep.csv and sweep.svg: every measure of every model, each
    with its difference from the first combination on the same prompts, and means over seeds if the seed is among the
    keys.
    """
    from constitutional_ai.cli.safe_console import SafeConsole
    from constitutional_ai.evaluation import sweep_table
    from constitutional_ai.recipes.arms import sweep_arms
    from constitutional_ai.report.figures.sweep_figure import write_figure

    quiet_libraries()
    folder, arms = sweep_arms(recipe, changes)
    console = SafeConsole(stderr=True, highlight=False, markup=False) if as_json else terminal()
    results = sweep_table.sweep_table(recipe, arms, run_arms(arms, console))
    sweep_table.write_files(results, folder)
    write_figure(results, folder)
    if as_json:
        for line in sweep_table.as_json(results).splitlines():
            echo(line)
    else:
        console.print(sweep_table.table(results))
        console.print(f"written to {folder}: sweep.json, sweep.csv, sweep.svg")


def run_arms(arms: Sequence[Arm], console: Console) -> dict[str, str]:
    """Run the arms one after another. Return why an arm was stopped, by its name, for those that a gate stopped."""
    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.errors import GateClosed
    from constitutional_ai.pipeline import run_pipeline
    from constitutional_ai.report.card import write_cards
    from constitutional_ai.report.page.page import write_report

    stopped: dict[str, str] = {}
    for number, arm in enumerate(arms, start=1):
        with Bars(console) as bars:
            bars.say(f"arm {number} of {len(arms)}: {arm.name}")
            others = [file.parent for file in sorted(arm.folder.parent.glob(f"*/{layout.RUN}"))]
            try:
                run = run_pipeline(
                    arm.recipe, progress=bars, notify=bars.say, after_stage=write_cards, siblings=others
                )
            except GateClosed as closed:
                stopped[arm.name] = str(closed)
                bars.say(f"{arm.name} is stopped: {closed}")
                continue
            write_report(run)
    return stopped
