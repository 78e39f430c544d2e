"""Define the commands that find runs and look into them: view and runs."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import click

from constitutional_ai.cli.app import PATH, echo, terminal


@click.command()
@click.argument("folder", metavar="RUN")
@click.option(
    "--port",
    default=8301,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on. 0 chooses a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. 0.0.0.0 accepts other machines.",
)
def view(folder: str, port: int, host: str) -> None:
    """Look into RUN in a browser: all records with search and filters, each prompt's history, and the report.

    Open the address that is printed: whoever knows it can read the run. Nothing is written to RUN, which may still be
    going on. End it with Ctrl-C.
    """
    from constitutional_ai.report.view.viewer import view as view_run
    from constitutional_ai.runs.folder import read_run

    with suppress(KeyboardInterrupt):
        view_run(read_run(folder), host, port, lambda address: echo(f"{folder}: {address}"))


@click.command()
@click.argument("folder", default="runs", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with all that is known of each run.")
def runs(folder: Path, as_json: bool) -> None:
    """List the runs below FOLDER (default: runs), the latest first.

    For each run: when its last stage was complete and which that was, its models and its constitution, and how often
    the last model that was evaluated objects to red-team prompts and refuses harmless ones.
    """
    from constitutional_ai.report.show.run_list import list_runs, runs_table

    listed = list_runs(folder)
    if as_json:
        echo(json.dumps([asdict(one) for one in listed], indent=1))
    else:
        terminal().print(runs_table(listed))
