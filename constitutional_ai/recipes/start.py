"""Start a project: a folder with a constitution, prompts and a recipe that run as they are (``cai new``)."""

from __future__ import annotations

from pathlib import Path

from constitutional_ai.errors import InputError

TEMPLATES = Path(__file__).parent / "new"
FILES = ("constitution.yaml", "prompts.jsonl", "recipe.yaml")


def start_project(folder: Path) -> list[Path]:
    """Write the files of a new project, and return them. Raises InputError if one of them is there already."""
    paths = [folder / name for name in FILES]
    for path in paths:
        if path.exists():
            raise InputError(f"{path} already exists. Name another folder: cai new FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.write_text((TEMPLATES / path.name).read_text(encoding="utf-8"), encoding="utf-8")
    return paths
