"""The command ``cai judge``."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import quiet_libraries


@click.command()
@click.argument("model")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="File of pairs: JSONL or .jsonl.gz."
)
@click.option("--constitution", default="default", show_default=True, help="A file, or a built-in one by name.")
@click.option(
    "--few-shots",
    default="built-in",
    show_default=True,
    help="Worked examples for models in the plain format: built-in, none, or a folder with the paper's files.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting from the recipe's section feedback, for example method=votes.",
)
@click.option("--limit", type=click.IntRange(1), help="How many pairs to use. Default: all.")
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write the report to.")
def judge(
    model: str,
    data: Path,
    constitution: str,
    few_shots: str,
    changes: tuple[str, ...],
    limit: int | None,
    seed: int,
    out: Path | None,
) -> None:
    """Measure MODEL as a judge, on pairs that people have judged.

    The report shows how often they agree, how sure the model is, how often it refuses, and whether order or length
    influences it. Defaults are the paper's.

    Each row of the file has chosen and rejected, and prompt, conversation or messages; or two whole dialogues, as in
    hh-rlhf.
    """
    from rich.console import Console

    from constitutional_ai.evaluation.judge.from_file import judge_model
    from constitutional_ai.evaluation.judge.judge_table import judge_table

    quiet_libraries()
    report = judge_model(
        model,
        data,
        constitution=constitution,
        few_shots=few_shots,
        changes=changes,
        limit=limit,
        seed=seed,
        out=out,
    )
    Console(highlight=False).print(judge_table(report))
