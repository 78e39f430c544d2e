"""``cai estimate``."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import quiet_libraries

PRICE = click.FloatRange(min=0)


@click.command()
@click.argument("recipe")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="A finished run from which to take times and tokens.",
)
@click.option(
    "--measure",
    is_flag=True,
    help="Load the models and measure their speed on some of the recipe's own requests.",
)
@click.option("--price-in", type=PRICE, help="Price of a million prompt tokens of a server.")
@click.option("--price-out", type=PRICE, help="Price of a million generated tokens of a server.")
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file for the results.")
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
    from constitutional_ai.stages.estimate_cost import Prices, table, write
    from constitutional_ai.stages.estimate_cost import estimate as estimated

    if (price_in is None) != (price_out is None):
        raise InputError("one price is missing: give both --price-in and --price-out.")
    quiet_libraries()
    prices = None if price_in is None or price_out is None else Prices(price_in, price_out)
    result = estimated(load_recipe(recipe, changes), PIPELINE, prices=prices, measure=measure, like=like)
    if out:
        write(out, result)
    Console(highlight=False).print(table(result))
