"""``cai show``, ``cai report``, ``cai compare`` and ``cai chat``, which read runs."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import quiet_libraries


@click.command()
@click.argument("folder", metavar="RUN")
@click.argument("record", metavar="ID")
@click.option("--scores", is_flag=True, help="Score every round of revision with the run's models.")
def show(folder: str, record: str, scores: bool) -> None:
    """Print everything that RUN recorded for one prompt. ID is the id of any of its records, or a prefix of it."""
    from rich.console import Console

    from constitutional_ai.report.show.record_history import history_of
    from constitutional_ai.runs.folder import read_run

    run = read_run(folder)
    Console().print(history_of(run, record))
    if scores:
        from constitutional_ai.report.show.round_scores import round_scores_of

        quiet_libraries()
        Console().print(round_scores_of(run, record))


@click.command()
@click.argument("folder", metavar="RUN")
def report(folder: str) -> None:
    """Write the report of RUN: one HTML file."""
    from constitutional_ai.report.page.page import write_report
    from constitutional_ai.runs.folder import read_run

    click.echo(f"report: {write_report(read_run(folder))}")


@click.command()
@click.argument("folders", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file for the results.")
def compare(folders: tuple[str, ...], out: Path | None) -> None:
    """Compare finished runs with the first one, prompt by prompt.

    To see the effect of the constitution, repeat a run with control=empty, control=shuffled or
    control=without:PRINCIPLE and another out=, and compare the two.
    """
    from rich.console import Console

    from constitutional_ai.evaluation.compare_runs import compare_runs, table

    Console(highlight=False).print(table(compare_runs(folders, out)))


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--temperature", default=0.4, show_default=True, help="0 is greedy decoding.")
@click.option("--max-tokens", default=128, show_default=True, help="Maximum length of an answer.")
def chat(folder: str, temperature: float, max_tokens: int) -> None:
    """Talk to the three models of RUN side by side."""
    from constitutional_ai.cli.chat import side_by_side
    from constitutional_ai.models.model import Sampling
    from constitutional_ai.runs.folder import read_run

    quiet_libraries()
    side_by_side(read_run(folder), Sampling(temperature=temperature, max_tokens=max_tokens))
