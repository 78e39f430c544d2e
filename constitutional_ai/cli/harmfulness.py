"""``cai harmfulness``."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import quiet_libraries


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the trained model.")
@click.option("--base", default="bundled:smollm2-135m", show_default=True, help="The model to finetune.")
@click.option(
    "--scale", type=click.Choice(["1", "4"]), help="The highest rating in FILE, if its rows do not contain it."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the training, for example epochs=3. Repeatable.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
def harmfulness(
    file: Path, out: Path, base: str, scale: str | None, changes: tuple[str, ...], seed: int
) -> None:
    """Train a model that rates the harmfulness of conversations from 0 to 4, on people's ratings in FILE.

    It minimises the squared error on whole conversations, and is tested on held-out prompts. Pass its folder to
    cai evaluate --harm-model. If it is interrupted, run the same command again to continue.

    FILE is JSON or JSONL, possibly gzipped: hh-rlhf's red-team attempts, PyRIT's scored responses, or rows with
    messages, or prompt and response, and a rating or harm.
    """
    from rich.console import Console

    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.evaluation.harmfulness.fit_regressor import make_regressor
    from constitutional_ai.evaluation.parts import table

    quiet_libraries()
    console = Console(highlight=False)
    with Bars(console) as bars:
        regressor = make_regressor(
            file,
            out,
            base=base,
            changes=changes,
            scale=None if scale is None else 1 if scale == "1" else 4,
            seed=seed,
            progress=bars,
            say=bars.say,
        )
    console.print(table(regressor.held_out))
    console.print(f"trained on {regressor.trained_on} conversations; written to {out}", markup=False)
