"""What a run says it was made with: its recipe, its constitution, and what each stage must agree with.

The files are written when a stage is begun, and only if every stage on disk was made with the same. So they describe
what is there, whatever commands were typed since.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from constitutional_ai.runs import layout
from constitutional_ai.runs.durable import PART
from constitutional_ai.runs.manifest import difference
from constitutional_ai.runs.rows import text_or_empty, write_atomically

NO_RECORDS = {
    *(layout.FAILURES, layout.GATE_FAILURES, layout.LOST, layout.GATE_LOST),
    *(layout.DATASET, layout.ITEMS, layout.COUNTS),
}
"""Files that a stage may have before anything is made in it."""


@dataclass(frozen=True)
class Provenance:
    """What the stages of a run are made with now."""

    texts: Mapping[str, str] = field(default_factory=dict)
    """Contents of the files of the recipe and the constitution, by name."""
    config: dict[str, Any] = field(default_factory=dict)
    """All settings, by the names that ``stage.json`` gives them."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Digests of what is no stage's output, such as the constitution."""

    def differs(self, stage: str, then: dict[str, Any], source: str) -> str | None:
        """Return a sentence about the first setting with which a stage was not made; None if there is none."""
        known = {name: digest for name, digest in self.inputs.items() if name in then["inputs"]}
        return difference(stage, then, {"config": self.config, "inputs": {**then["inputs"], **known}}, source)

    def exists(self, folder: Path) -> bool:
        """Return whether a run's folder has the files, with whatever contents."""
        return all((folder / name).is_file() for name in self.texts)

    def unwritten(self, folder: Path) -> list[str]:
        """Return the names of the files that a run's folder has with other contents, or lacks."""
        return [name for name, text in self.texts.items() if text_or_empty(folder / name) != text]

    def write(self, folder: Path) -> None:
        """Write the files."""
        for name in self.unwritten(folder):
            write_atomically(folder / name, self.texts[name])


def has_records(folder: Path, steps: Collection[Path] = ()) -> bool:
    """Return whether anything was made in a stage's folder: records, or part of a training.

    ``steps`` are folders in it that are stages of their own.
    """
    return any(
        file.stat().st_size
        for file in folder.rglob("*")
        if file.is_file()
        and file.name not in NO_RECORDS
        and not file.name.endswith(PART)
        and not any(file.is_relative_to(step) for step in steps)
    )
