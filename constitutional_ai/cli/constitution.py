"""Define ``cai check`` and ``cai constitution``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from constitutional_ai.cli.app import PATH, Commands, echo

if TYPE_CHECKING:
    from constitutional_ai.constitutions.constitution import Constitution


@click.command()
@click.argument("constitution")
def check(constitution: str) -> None:
    """Check CONSTITUTION and print a summary.

    CONSTITUTION is a YAML file or the name of a built-in constitution.
    """
    from constitutional_ai.constitutions.constitution import load_constitution

    _summarise(load_constitution(constitution))


def _summarise(loaded: Constitution) -> None:
    echo(f"{loaded.name}, version {loaded.digest}")
    echo(f"  {len(loaded.for_revision)} principles for revisions (the paper has 16)")
    echo(f"  {len(loaded.for_preference)} principles for comparisons (the paper has 16)")
    if not (loaded.for_revision and loaded.for_preference):
        echo("  A whole run needs both.")


@click.group(cls=Commands)
def constitution() -> None:
    """Import, lint and compare constitutions."""


@constitution.command("import")
@click.argument("source", type=PATH)
@click.option("--out", required=True, type=PATH, help="The YAML file to write.")
def import_(source: Path, out: Path) -> None:
    """Convert SOURCE to a constitution file.

    SOURCE is a copy of the paper's repository, an llm-swarm or NeMo-Aligner constitution, a text file with one
    preference question per line, or a flat Markdown list.
    """
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.published import import_constitution
    from constitutional_ai.errors import InputError

    if out.exists():
        raise InputError(f"{out} already exists. Delete it, or choose another file with --out.")
    text = import_constitution(source).to_yaml()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    imported = load_constitution(out)
    echo(f"{out}: {imported.description}")
    _summarise(imported)
    echo(f"To find mistakes, run: cai constitution lint {out}")


@constitution.command()
@click.argument("file")
@click.pass_context
def lint(ctx: click.Context, file: str) -> None:
    """Print likely mistakes in FILE, a file or the name of a built-in one. The exit code is 1 if there are any."""
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.lint import lint

    loaded = load_constitution(file)
    findings = lint(loaded)
    for finding in findings:
        echo(str(finding))
    echo(f"{loaded.name}, version {loaded.digest}: {len(findings)} findings")
    ctx.exit(1 if findings else 0)


@constitution.command()
@click.argument("old")
@click.argument("new")
def diff(old: str, new: str) -> None:
    """Print what changed from OLD to NEW, principle by principle."""
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.lint import diff

    echo("\n".join(diff(load_constitution(old), load_constitution(new))))
