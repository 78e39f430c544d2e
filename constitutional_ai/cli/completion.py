"""Complete the names of runs, recipes and keys in a shell (docs/install.md says how to switch it on)."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from constitutional_ai.runs import layout


def runs(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the runs in ``runs/`` and in the folder that is being typed, then all other paths."""
    folder = Path(typed)
    files = {*Path("runs").glob(f"*/{layout.RUN}"), *folder.glob(f"*/{layout.RUN}")}
    files |= set(folder.parent.glob(f"{folder.name}*/{layout.RUN}")) if folder.name else set()
    names = sorted(str(file.parent) for file in files if str(file.parent).startswith(typed))
    return [*map(CompletionItem, names), CompletionItem(typed, type="file")]


def recipes(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the built-in recipes, then all files."""
    built_in = sorted(path.stem for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"))
    items = [CompletionItem(name) for name in built_in if name.startswith(typed)]
    return [*items, CompletionItem(typed, type="file")]


def keys(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the keys of a recipe that begin so, with ``=``, and what each does."""
    from constitutional_ai.recipes.describe import recipe_keys

    return [
        CompletionItem(f"{key.name}=", help=key.text)
        for key in recipe_keys()
        if not key.is_section and key.name.startswith(typed)
    ]


def key_names(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the keys and sections of a recipe that begin so."""
    from constitutional_ai.recipes.describe import recipe_keys

    return [CompletionItem(key.name, help=key.text) for key in recipe_keys() if key.name.startswith(typed)]
