"""``cai check`` and ``cai constitution``."""

from __future__ import annotations

from pathlib import Path

import click

from constitutional_ai.cli.app import Commands


@click.command()
@click.argument("constitution")
def check(constitution: str) -> None:
    """Check CONSTITUTION and say what it holds.

    It is a YAML file, or one of ours by name.
    """
    from constitutional_ai.constitutions.constitution import load_constitution

    loaded = load_constitution(constitution)
    click.echo(f"{loaded.name}, version {loaded.digest}")
    click.echo(f"  {len(loaded.for_revision)} principles to revise under (the paper has 16)")
    click.echo(f"  {len(loaded.for_preference)} principles to compare under (the paper has 16)")
    if not (loaded.for_revision and loaded.for_preference):
        click.echo("  A whole run needs both.")


@click.group(cls=Commands)
def constitution() -> None:
    """Import, lint and compare constitutions."""


@constitution.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The YAML file to write.")
def import_(source: Path, out: Path) -> None:
    """Turn SOURCE into one of our constitutions.

    SOURCE is a copy of the paper's repository, an llm-swarm or NeMo-Aligner constitution, or a text file with one
    preference question a line.
    """
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.published import import_constitution
    from constitutional_ai.errors import InputError

    if out.exists():
        raise InputError(f"{out} is already there. Delete it, or name another file with --out.")
    text = import_constitution(source).to_yaml()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    made = load_constitution(out)
    click.echo(f"{out}: {made.name}, version {made.digest}. {made.description}")
    click.echo(
        f"  {len(made.for_revision)} principles to revise under, {len(made.for_preference)} to compare under"
    )
    click.echo(f"See what to mend: cai constitution lint {out}")


@constitution.command()
@click.argument("file")
@click.pass_context
def lint(ctx: click.Context, file: str) -> None:
    """Say what is likely wrong with FILE (or one of ours by name); exits with 1 when something is."""
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.lint import lint

    loaded = load_constitution(file)
    findings = lint(loaded)
    for finding in findings:
        click.echo(str(finding))
    click.echo(f"{loaded.name}, version {loaded.digest}: {len(findings)} findings")
    ctx.exit(1 if findings else 0)


@constitution.command()
@click.argument("old")
@click.argument("new")
def diff(old: str, new: str) -> None:
    """Say what changed from OLD to NEW, principle by principle."""
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.lint import diff

    click.echo("\n".join(diff(load_constitution(old), load_constitution(new))))
