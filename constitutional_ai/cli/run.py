"""Define ``cai run`` and ``cai estimate``."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import PATH, quiet_libraries
from constitutional_ai.runs import layout


@click.command()
@click.argument("recipe")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--until", type=click.Choice(layout.STAGES), metavar="STAGE", help="Stop after this stage.")
@click.option(
    "--redo", type=click.Choice(layout.STAGES), metavar="STAGE", help="Repeat this stage and all later ones."
)
def run(recipe: str, changes: tuple[str, ...], until: str | None, redo: str | None) -> None:
    """Run RECIPE, or continue a run that was interrupted.

    RECIPE is a YAML file or a built-in recipe, by name (demo, paper). KEY=VALUE changes any key of the recipe, for
    example revisions.rounds=2 or out=runs/mine.

    \b
    STAGE is one of 00-prompts, 01-responses, 02-revisions, 03-sl-cai-model, 04-comparisons,
    05-preference-labels, 06-preference-model, 07-rl-cai-model, 08-evaluation.
    00-prompts exists only if the recipe generates prompts.
    """
    from rich.console import Console

    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.pipeline import run_pipeline
    from constitutional_ai.recipes.recipe_file import load_recipe
    from constitutional_ai.report.card import write_cards
    from constitutional_ai.report.page.page import write_report

    quiet_libraries()
    console = Console(highlight=False)
    settings = load_recipe(recipe, changes)
    with Bars(console) as bars:
        finished = run_pipeline(
            settings, progress=bars, notify=bars.say, until=until, redo=redo, after_stage=write_cards
        )
    if until is None or until == layout.STAGES[-1]:
        console.print(f"report: {write_report(finished)}")
    else:
        done = "is complete" if finished.manifest(until) else "is not part of this recipe"
        console.print(f"{until} {done} in {finished.folder}.")


@click.command()
@click.argument("recipe")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--like", type=PATH, metavar="RUN", help="A finished run from which to take times and tokens.")
@click.option("--measure", is_flag=True, help="Load the models and time some of the recipe's own requests.")
@click.option("--price-in", type=click.FloatRange(min=0), help="Price of a million prompt tokens of a server.")
@click.option(
    "--price-out", type=click.FloatRange(min=0), help="Price of a million generated tokens of a server."
)
@click.option("--out", type=PATH, help="A JSON file for the results.")
def estimate(
    recipe: str,
    changes: tuple[str, ...],
    like: Path | None,
    measure: bool,
    price_in: float | None,
    price_out: float | None,
    out: Path | None,
) -> None:
    """Estimate the cost of RECIPE before running it, stage by stage: calls, tokens, time and money.

    Tokens are upper bounds: every answer has its maximum length. Times need --measure or --like; amounts of money need
    both prices.
    """
    from rich.console import Console

    from constitutional_ai.errors import InputError
    from constitutional_ai.pipeline import PIPELINE
    from constitutional_ai.recipes.recipe_file import load_recipe
    from constitutional_ai.stages.estimate_cost import estimate as estimated
    from constitutional_ai.stages.estimate_cost import table, write

    if (price_in is None) != (price_out is None):
        raise InputError("one price is missing: give both --price-in and --price-out.")
    quiet_libraries()
    prices = None if price_in is None or price_out is None else (price_in, price_out)
    result = estimated(load_recipe(recipe, changes), PIPELINE, prices=prices, measure=measure, like=like)
    if out:
        write(out, result)
    Console(highlight=False).print(table(result))
