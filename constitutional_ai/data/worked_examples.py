"""Find and read files of worked examples (few-shots), in the format of the paper's supplementary repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from constitutional_ai.data.lines import read_json
from constitutional_ai.errors import InputError

FEW_SHOTS = Path(__file__).parent / "few_shots"
CRITIQUE_REVISION = "CritiqueRevisionFewShotPrompts.json"
BUILT_IN = {"built-in": FEW_SHOTS, "short": FEW_SHOTS / "short"}
"""``short`` has eight critiques and revisions of one sentence each, whose form even a very small model keeps."""


def few_shots_folder(name: str) -> Path | None:
    """Return the folder that a recipe names: ``built-in``, ``short``, ``none`` (None) or a path."""
    return None if name == "none" else BUILT_IN.get(name, Path(name))


def examples_in(folder: Path, name: str) -> list[tuple[str, Any]]:
    """Return every example of the file ``name``, each with its place, for errors.

    ``folder`` is the paper's repository or its ``prompts/``. A file that ``short`` lacks is the built-in one. Raises
    InputError when the file holds no list of examples.
    """
    path = (folder / "prompts" if (folder / "prompts").is_dir() else folder) / name
    if folder == BUILT_IN["short"] and not path.exists():
        path = FEW_SHOTS / name
    data = read_json(path)
    if not (isinstance(data, list) and data):
        raise InputError(f"{path} must hold a list of examples, as the paper's file of that name does.")
    return [(f"{path}: [{number}]", item) for number, item in enumerate(data)]
