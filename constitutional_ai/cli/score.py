"""``cai score`` and ``cai serve``, which use a preference model."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import quiet_libraries


@click.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The JSONL file for the scores.")
def score(model: str, file: Path, out: Path) -> None:
    """Score the conversations in FILE with the preference model MODEL.

    MODEL is a run or the folder of a saved preference model.

    FILE is JSONL. A row has messages, conversation or text, or a prompt and a completion or response; or it is a record
    of a run's 01-responses or 08-evaluation. Scores are in the order of FILE, with its line numbers and ids.
    """
    from constitutional_ai.serve.score_file import score_file

    quiet_libraries()
    result = score_file(model, file, out)
    sd = "" if result.sd is None else f", standard deviation {result.sd:.4g}"
    click.echo(f"{out}: {len(result.scores)} conversations, mean score {result.mean:.4g}{sd}")
    if result.unscored:
        click.echo(f"{result.unscored} rows of {file} could not be scored:", err=True)
        click.echo("".join(f"  {reason}\n" for reason in result.reasons), err=True, nl=False)


@click.command()
@click.argument("model")
@click.option(
    "--port",
    default=8300,
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
def serve(model: str, port: int, host: str) -> None:
    """Serve the preference model MODEL over HTTP, for other trainers (TRL, OpenRLHF, verl).

    MODEL is a run or the folder of a saved preference model. There is no access control: anybody who can reach the port
    can use it.
    """
    from constitutional_ai.serve.score_file import serve_model

    quiet_libraries()
    serve_model(model, host, port, click.echo)
