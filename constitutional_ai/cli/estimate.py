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
    "--like", type=click.Path(path_type=Path), metavar="RUN", help="A run to take times and tokens from."
)
@click.option(
    "--measure", is_flag=True, help="Load the models, and measure them on some of the recipe's own requests."
)
@click.option("--price-in", type=PRICE, help="Of a million tokens that a server reads.")
@click.option("--price-out", type=PRICE, help="Of a million tokens that a server writes.")
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file to write the figures to.")
def estimate(
    recipe: str,
    changes: tuple[str, ...],
    like: Path | None,
    measure: bool,
    price_in: float | None,
    price_out: float | None,
    out: Path | None,
) -> None:
    """Say what RECIPE will cost, stage by stage, before it is run: calls, tokens, time and money.

    Tokens are those of answers as long as they may be. Time is known only from --measure or --like, and money only from
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
    made = estimated(load_recipe(recipe, changes), PIPELINE, prices=prices, measure=measure, like=like)
    if out:
        write(out, made)
    Console(highlight=False).print(table(made))
