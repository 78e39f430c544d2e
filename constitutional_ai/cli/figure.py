"""``cai figure``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("number", type=click.IntRange(2, 12), metavar="N")
@click.argument("folders", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the files. Default: figures in the evaluation."
)
@click.option(
    "--paper-behind/--no-paper-behind",
    "behind",
    default=False,
    help="Add the paper's own numbers in grey (figures 2, 3, 4, 5, 8, 10).",
)
def figure(number: int, folders: tuple[str, ...], out: Path | None, behind: bool) -> None:
    """Draw the paper's figure N for your runs: SVG, PNG, and its data as CSV.

    RUN is a run that cai evaluate has measured, or the folder of an evaluation.

    \b
    2   helpfulness against harmlessness, in Elo   8   Elo over RL
    3   Elo against model size                     9   calibration of the feedback model
    4   HHH accuracy against model size            10  absolute harmfulness over RL
    5   preference-model scores by revision        11  accuracy on the older 221 questions
    6   … by number of principles                  12  identifying and classifying harm
    7   … with and without critiques
    """
    from constitutional_ai.report.figures.paper_figures import write_figure

    for path in write_figure(number, folders, out=out, behind=behind):
        click.echo(path)
