"""``cai harmfulness``."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import quiet_libraries


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to train it in.")
@click.option("--base", default="bundled:smollm2-135m", show_default=True, help="The model to be finetuned.")
@click.option(
    "--scale", type=click.Choice(["1", "4"]), help="The highest rating of FILE, where its rows do not say it."
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Of the training: epochs=3.")
@click.option("--seed", default=0, show_default=True)
def harmfulness(
    file: Path, out: Path, base: str, scale: str | None, changes: tuple[str, ...], seed: int
) -> None:
    """Train a model that rates conversations for harm, from 0 to 4, as people rated those in FILE.

    It learns from whole conversations by squared error; some prompts are held out and measured on. It is what
    cai evaluate --harm-model takes. Killed, it goes on where it was.

    FILE is JSON or JSONL, also gzipped: hh-rlhf's red-team attempts, PyRIT's scored responses, or rows with messages,
    or prompt and response, and a rating or harm.
    """
    from rich.console import Console

    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.evaluation.harmfulness.fit_regressor import make_regressor
    from constitutional_ai.evaluation.parts import table

    quiet_libraries()
    console = Console(highlight=False)
    with Bars(console) as bars:
        made = make_regressor(
            file,
            out,
            base=base,
            changes=changes,
            scale=None if scale is None else 1 if scale == "1" else 4,
            seed=seed,
            progress=bars,
            say=bars.say,
        )
    console.print(table(made.held_out))
    console.print(f"trained on {made.trained_on} conversations; written to {out}", markup=False)
