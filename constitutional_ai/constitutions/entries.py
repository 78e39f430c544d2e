"""What the readers of published forms return: principles before they are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

Entry = dict[str, Any]
"""Some fields of a principle; a name is added where there is none."""


class Imported(NamedTuple):
    """The principles of a file, and a sentence about what was left out."""

    entries: list[Entry]
    note: str = ""


def anchor(path: Path, line: int | None = None, clause: str | None = None) -> dict[str, Any]:
    """Return the ``source`` of a principle that was read from a line or a clause of a file."""
    return {"document": path.name, "clause": clause, "line": line}
