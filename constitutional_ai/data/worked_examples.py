"""Finds and reads files of worked examples (few-shots)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from constitutional_ai.data.lines import read_json
from constitutional_ai.errors import InputError

FEW_SHOTS = Path(__file__).parent / "few_shots"


def few_shots_folder(name: str) -> Path | None:
    return None if name == "none" else FEW_SHOTS if name == "built-in" else Path(name)


def examples_in(folder: Path, name: str) -> list[tuple[str, Any]]:
    """Every example of one of the paper's few-shot files, with its place for errors. Raises InputError."""
    path = (folder / "prompts" if (folder / "prompts").is_dir() else folder) / name
    data = read_json(path)
    if not (isinstance(data, list) and data):
        raise InputError(f"{path} must hold a list of examples, as the paper's file of that name does.")
    return [(f"{path}: [{number}]", item) for number, item in enumerate(data)]
