"""Keep what the pieces of a long measurement came to, so that it goes on where it was stopped.

A piece is a line of ``build/torture/NAME.jsonl``; delete the file to begin anew. After ``SECONDS`` no piece begins.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "build" / "torture"
Figures = dict[str, Any]


class Pieces:
    """The pieces of one measurement with the same settings, numbered from 0."""

    def __init__(self, name: str, **settings: Any) -> None:
        """Read the pieces that are there. Those of other settings stay in the file and do not count."""
        self.name, self._settings, self._file = name, settings, FOLDER / f"{name}.jsonl"
        self._ends = time.monotonic() + float(os.environ.get("SECONDS", "inf"))
        whole = self._file.read_text().rpartition("\n")[0] if self._file.exists() else ""
        pieces = [json.loads(line) for line in whole.splitlines()]
        self.figures: list[Figures] = [piece for piece in pieces if piece["settings"] == settings]

    def next_numbers(self) -> Iterator[int]:
        """Yield the number of the next piece as long as there is time; ``add`` each before the next."""
        while time.monotonic() < self._ends:
            yield len(self.figures)

    def add(self, **figures: Any) -> None:
        """Write what the next piece came to."""
        piece = {"piece": len(self.figures), "settings": self._settings, "commit": _commit(), **figures}
        FOLDER.mkdir(parents=True, exist_ok=True)
        content = self._file.read_bytes() if self._file.exists() else b""
        with self._file.open("ab") as file:
            file.truncate(content.rfind(b"\n") + 1)  # without a line that was cut off
            file.write(json.dumps(piece).encode() + b"\n")
        self.figures.append(piece)

    def total(self, key: str) -> float:
        """Return the sum of a figure over all pieces, or the largest of ``megabytes``; lists count their entries."""
        values = [piece[key] for piece in self.figures]
        if key == "megabytes":
            return max(values, default=0)
        return sum(len(value) if isinstance(value, list) else value for value in values)

    def print_line(self, key: str, wanted: int) -> bool:
        """Print all totals as a line of JSON, and return whether ``key`` has come to ``wanted``."""
        keys = [k for k, value in (self.figures or [{}])[0].items() if isinstance(value, int | float | list)]
        totals = {k: round(self.total(k), 1) for k in keys if k != "piece"}
        commits = sorted({piece["commit"] for piece in self.figures})
        complete = totals.get(key, 0) >= wanted
        line = {"name": self.name, **self._settings, "pieces": len(self.figures), **totals, "of": wanted}
        print(json.dumps({**line, "complete": complete, "commits": commits}), flush=True)
        return complete


def cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def most_megabytes() -> float:
    """Return the largest memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _commit() -> str:
    git = ["git", "-C", str(FOLDER.parents[1]), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip()
