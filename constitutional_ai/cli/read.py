"""Define the commands that read runs: show, report, compare, chat, figure and export."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from constitutional_ai.cli import completion
from constitutional_ai.cli.app import PATH, TOKENS, echo, json_option, print_json, terminal

EXPORTS = ("parquet", "inspect", "trl", "llama-factory", "verl", "openrlhf", "messages", "sharegpt")
"""The forms of ``cai export``; a test holds them to those of ``report/export``."""


@click.command()
@click.argument("folder", metavar="RUN", shell_complete=completion.runs)
@click.argument("record", metavar="ID")
@click.option("--scores", is_flag=True, help="Score every round of revision with the run's models.")
def show(folder: str, record: str, scores: bool) -> None:
    """Print everything that RUN recorded for one prompt. ID is the id of any of its records, or a prefix of it."""
    from constitutional_ai.report.show.record_history import history_of
    from constitutional_ai.runs.folder import read_run

    run = read_run(folder)
    terminal().print(history_of(run, record))
    if scores:
        from constitutional_ai.report.show.round_scores import round_scores_of

        terminal().print(round_scores_of(run, record))


@click.command()
@click.argument("folder", metavar="RUN", shell_complete=completion.runs)
def report(folder: str) -> None:
    """Write the report of RUN: one HTML file."""
    from constitutional_ai.report.page.page import write_report
    from constitutional_ai.runs.folder import read_run

    echo(f"report: {write_report(read_run(folder))}")


@click.command()
@click.argument("folders", metavar="RUN RUN...", nargs=-1, required=True, shell_complete=completion.runs)
@click.option("--out", type=PATH, help="A JSON file for the results.")
@json_option
def compare(folders: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Compare finished runs with the first one, prompt by prompt.

    To see the effect of the constitution, repeat a run with control=empty, control=shuffled or
    control=without:PRINCIPLE and another out=, and compare the two.
    """
    from constitutional_ai.evaluation.compare_runs import compare_runs, table

    compared = compare_runs(folders, out)
    if as_json:
        print_json({"comparisons": [asdict(one) for one in compared]})
    else:
        terminal().print(table(compared))


@click.command()
@click.argument("folder", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "--temperature", type=click.FloatRange(0, 10), default=0.4, show_default=True, help="0 is greedy decoding."
)
@click.option("--max-tokens", type=TOKENS, default=128, show_default=True, help="Maximum length of an answer.")
def chat(folder: str, temperature: float, max_tokens: int) -> None:
    """Talk to the three models of RUN side by side."""
    from constitutional_ai.cli.chat import side_by_side
    from constitutional_ai.models.model import Sampling
    from constitutional_ai.runs.folder import read_run

    side_by_side(read_run(folder), Sampling(temperature=temperature, max_tokens=max_tokens))


@click.command()
@click.argument("number", type=click.IntRange(2, 12), metavar="N")
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.runs)
@click.option("--out", type=PATH, help="Folder for the files. Default: figures in the evaluation.")
@click.option(
    "--paper-behind/--no-paper-behind",
    "behind",
    default=False,
    help="Add the paper's numbers in grey (figures 2, 3, 4, 5, 8, 10).",
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

    def say(sentence: str) -> None:
        echo(sentence, err=True)

    for path in write_figure(number, folders, out=out, behind=behind, say=say):
        echo(path)


@click.command()
@click.argument("folder", metavar="RUN_OR_EVALUATION", shell_complete=completion.runs)
@click.option("--to", "form", type=click.Choice(EXPORTS), required=True, help="Format of the files.")
@click.option("--out", type=PATH, required=True, help="Folder for the files.")
def export(folder: str, form: str, out: Path) -> None:
    """Export the records of RUN_OR_EVALUATION for other tools.

    parquet: a file for each kind of record (responses, revisions, comparisons, labels, answers, metrics …), for
    datasets, pandas or DuckDB; and principles.csv, which says what each principle did. inspect: a log for each
    evaluated model, for inspect view; this needs constitutional-ai[inspect].

    For training elsewhere, files of finetuning rows, of pairs with soft labels, and of prompts, in the form of trl,
    llama-factory, verl or openrlhf, or in the common forms messages and sharegpt.
    """
    from constitutional_ai.runs.folder import read_run

    if form == "parquet":
        from constitutional_ai.report.export.parquet import to_parquet as write
    elif form == "inspect":
        from constitutional_ai.report.export.inspect_log import to_inspect as write
    else:
        from constitutional_ai.report.export.trainer_files import to_trainer

        write = partial(to_trainer, form)
    for one in write(read_run(folder), out):
        echo(
            f"{one.file}: {one.rows:,} {'samples' if form == 'inspect' else 'rows'}"
            f"{f' ({one.note})' if one.note else ''}"
        )
