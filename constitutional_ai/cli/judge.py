"""``cai judge``."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import quiet_libraries


@click.command()
@click.argument("model")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Pairs: JSONL, or .jsonl.gz.")
@click.option("--constitution", "named", default="default", show_default=True, help="A file, or one of ours.")
@click.option(
    "--few-shots", default="built-in", show_default=True, help="As in a recipe; for models in the plain format."
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="As in a recipe under feedback: method=votes."
)
@click.option("--limit", type=click.IntRange(1), help="How many pairs to use; all of them unless said.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file to write the figures to.")
def judge(
    model: str,
    data: Path,
    named: str,
    few_shots: str,
    changes: tuple[str, ...],
    limit: int | None,
    seed: int,
    out: Path | None,
) -> None:
    """Measure MODEL as a judge, on pairs that people judged.

    How often they agree, how sure it is, how often it refuses, and whether order or length sways it. Defaults are the
    paper's.

    A row of the file has chosen and rejected, and prompt, conversation or messages; or two whole dialogues, as in
    hh-rlhf.
    """
    from rich.console import Console

    from constitutional_ai.evaluation.judge.from_file import judge_model
    from constitutional_ai.evaluation.judge.judge_table import table

    quiet_libraries()
    report = judge_model(
        model,
        data,
        constitution=named,
        few_shots=few_shots,
        changes=changes,
        limit=limit,
        seed=seed,
        out=out,
    )
    Console(highlight=False).print(table(report))
