"""Define ``cai push`` and ``cai pull``, the commands that go to Hugging Face's hub."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import PATH, echo

PARTS = ("data", "sl-cai", "preference-model", "rl-cai")
"""What can be pushed; a test holds it to ``report/export/hub_repositories.py``."""


@click.command()
@click.argument("folder", metavar="RUN")
@click.argument("name", metavar="OWNER/NAME")
@click.option("--only", "parts", type=click.Choice(PARTS), multiple=True, help="Push this part; repeatable.")
@click.option("--public", is_flag=True, help="Let everybody see what is created. Without it, only you can.")
def push(folder: str, name: str, parts: tuple[str, ...], public: bool) -> None:
    """Push RUN to Hugging Face's hub: its data as a data set, and its models with their cards.

    The data set is OWNER/NAME, and the models are OWNER/NAME-sl-cai, -preference-model and -rl-cai. Constitution and
    recipe go along. Log in first with: hf auth login (or set HF_TOKEN).
    """
    from constitutional_ai.report.export.hub_repositories import push as pushed
    from constitutional_ai.runs.folder import read_run

    for one in pushed(read_run(folder), name, parts, public=public):
        echo(f"{one.part}: {one.address}")


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--out", type=PATH, required=True, help="A new folder for the files.")
def pull(name: str, out: Path) -> None:
    """Download a model from Hugging Face's hub, or a data set.

    NAME is OWNER/NAME for a model, and datasets/OWNER/NAME for a data set. Only weights in safetensors, tables and
    texts are downloaded: nothing that could hold code.
    """
    from constitutional_ai.report.export.hub_repositories import pull as pulled

    echo(f"files: {pulled(name, out)}")
