"""Define ``cai recipe`` and ``cai new``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from constitutional_ai.cli import completion
from constitutional_ai.cli.app import PATH, echo


@click.command()
@click.argument("name", required=False, shell_complete=completion.recipes)
@click.argument("key", required=False, shell_complete=completion.key_names)
@click.option("--schema", is_flag=True, help="Print the JSON schema of a recipe, for editors.")
@click.option(
    "--markdown", is_flag=True, help="Print all keys as a page, with the values of the built-in recipes."
)
def recipe(name: str | None, key: str | None, schema: bool, markdown: bool) -> None:
    """Print what a recipe can set: every key with its value, what it may be, and where the paper says so.

    NAME is a YAML file or a built-in recipe, such as demo, whose values are shown; without one, the defaults are. KEY
    is a key or a section, such as revisions.rounds or rl_cai, and may also stand alone.
    """
    from constitutional_ai.recipes import describe
    from constitutional_ai.recipes.recipe_file import is_recipe, load_recipe

    if schema:
        echo(json.dumps(describe.recipe_schema(), indent=1, ensure_ascii=False))
    elif markdown:
        for line in describe.recipe_page().splitlines():
            echo(line)
    else:
        if key is None and name and not is_recipe(name):
            name, key = None, name
        values = describe.values_of(load_recipe(name)) if name else None
        lines = describe.key_lines(describe.keys_under(key), values)
        echo("\n".join(lines).strip("\n"))


@click.command()
@click.argument("folder", type=PATH)
def new(folder: Path) -> None:
    """Start a project in FOLDER: a constitution, prompts and a recipe, to be changed.

    They run as they are, on the embedded model, in minutes. The constitution has a principle with every field.
    """
    from shlex import quote

    from constitutional_ai.recipes.start import start_project

    for path in start_project(folder):
        echo(path)
    echo("\nTo go on, edit constitution.yaml and prompts.jsonl, and type:\n")
    echo(f"  cd {quote(str(folder))}")
    echo("  cai check constitution.yaml     # is it well-formed?")
    echo("  cai estimate recipe.yaml        # what will the run do?")
    echo("  cai run recipe.yaml             # do it; the report is run/report.html")
