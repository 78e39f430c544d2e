"""``cai score`` and ``cai serve``: a preference model at work."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import quiet_libraries


@click.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The JSONL file to write.")
def score(model: str, file: Path, out: Path) -> None:
    """Score the conversations in FILE with the preference model MODEL.

    MODEL is a run, or the folder of a saved preference model.

    FILE is JSONL. A row has messages, conversation or text, or a prompt and a completion or response; or it is a record
    of a run's 01-responses or 08-evaluation. Scores are written in the order of FILE, with its line numbers and ids.
    """
    from constitutional_ai.serve.score_file import score_file

    quiet_libraries()
    made = score_file(model, file, out)
    sd = "" if made.sd is None else f", standard deviation {made.sd:.4g}"
    click.echo(f"{out}: {len(made.scores)} conversations, mean score {made.mean:.4g}{sd}")
    if made.unscored:
        click.echo(f"{made.unscored} rows of {file} could not be scored:", err=True)
        click.echo("".join(f"  {reason}\n" for reason in made.reasons), err=True, nl=False)


@click.command()
@click.argument("model")
@click.option(
    "--port", default=8300, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Others than this machine's are served too then."
)
def serve(model: str, port: int, host: str) -> None:
    """Serve the preference model MODEL over HTTP, for the trainers of others (TRL, OpenRLHF, verl).

    MODEL is a run, or the folder of a saved preference model. There is no key: whoever reaches the port can ask.
    """
    from constitutional_ai.serve.score_file import serve_model

    quiet_libraries()
    serve_model(model, host, port, click.echo)
