"""``cai label results``, ``export`` and ``import``: use what people answered."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from constitutional_ai.cli.app import PATH, echo, terminal


@click.command()
@click.argument("folder", type=PATH)
@click.option(
    "--anchor", metavar="LABEL", help="The model whose Elo is 0. Default: sl-cai, otherwise the first one."
)
@click.option("--out", type=PATH, help="A JSON file for the results.")
def results(folder: Path, anchor: str | None, out: Path | None) -> None:
    """Show what people answered in FOLDER: Elo scores, shares with intervals, and how far people agree.

    Agreement is Krippendorff's alpha over the questions that several people answered; it needs
    constitutional-ai[label].
    """
    from constitutional_ai.evaluation.parts import table
    from constitutional_ai.label.study import Study
    from constitutional_ai.label.vote_results import measure_votes, write_metrics

    with closing(Study(folder)) as study:
        metrics = measure_votes(study, anchor, lambda sentence: echo(sentence, err=True))
    terminal().print(table(metrics))
    if out:
        write_metrics(out, metrics)


FORMS = ("matches", "judge", "harmfulness", "dataset", "label-studio", "potato")


@click.command()
@click.argument("folder", type=PATH)
@click.option("--to", "form", type=click.Choice(FORMS), required=True, help="What to write.")
@click.option("--out", type=PATH, required=True, help="The file. It must not exist yet.")
def export(folder: Path, form: str, out: Path) -> None:
    """Write the answers in FOLDER to a file.

    \b
    matches       a row for each choice: the models, and which one won
    judge         pairs with the chosen reply, for cai judge --data
    harmfulness   conversations with their ratings, for cai harmfulness
    dataset       prompts and completions: accepted and edited revisions
    label-studio  the pairs and choices as tasks of Label Studio
    potato        the pairs as items of Potato, without choices
    """
    from constitutional_ai.label.exports import write_export
    from constitutional_ai.label.study import Study

    with closing(Study(folder)) as study:
        echo(write_export(study, form, out))


@click.command("import")
@click.argument("folder", type=PATH)
@click.argument("file", type=PATH)
@click.option(
    "--from",
    "form",
    type=click.Choice(["label-studio", "potato"]),
    required=True,
    help="Whose file it is: Label Studio's JSON export, or a user_state.json of Potato.",
)
def import_(folder: Path, file: Path, form: str) -> None:
    """Add the choices of people in another tool to FOLDER, whose pairs were exported to that tool."""
    from constitutional_ai.label.other_tools import read_choices
    from constitutional_ai.label.study import Study

    with closing(Study(folder)) as study:
        echo(read_choices(study, form, file))
