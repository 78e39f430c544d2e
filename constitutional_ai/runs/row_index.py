"""An index of the finished records of a stage: their positions in the file, and their costs.

It does not hold the records: a million of them would take gigabytes, while their index takes 0.2 GB.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from constitutional_ai.records import Usage, usage
from constitutional_ai.runs.rows import PART, naming_full_disk, sized_rows


class RowIndex:
    """The index of one file of records, which grows as records are appended."""

    def __init__(self, path: Path, row_type: type[Any]) -> None:
        """Read the whole file. Raises InputError naming a line that is wrong."""
        self._path = path
        self._line: dict[str, int] = {}
        self._starts = array("q", [0])
        self._prompt_tokens, self._completion_tokens = array("q"), array("q")
        for row, size in sized_rows(path, row_type):
            self.add(row.id, size, usage(row))

    def __contains__(self, name: str) -> bool:
        return name in self._line

    def add(self, name: str, size: int, tokens: Usage) -> None:
        """Add the record ``name``, whose line of ``size`` bytes was appended to the file."""
        self._line[name] = len(self._prompt_tokens)
        self._starts.append(self._starts[-1] + size)
        self._prompt_tokens.append(tokens.prompt_tokens)
        self._completion_tokens.append(tokens.completion_tokens)

    @property
    def tokens(self) -> int:
        """All tokens that the records cost."""
        return sum(self._prompt_tokens) + sum(self._completion_tokens)

    @property
    def dearest(self) -> int | None:
        """Tokens of the most expensive record; None without records."""
        return max(map(int.__add__, self._prompt_tokens, self._completion_tokens), default=None)

    def sort_file(self, names: Iterable[str]) -> Usage:
        """Rewrite the file with only the records ``names``, in this order, and return the tokens that they cost.

        The index is invalid afterwards.
        """
        lines = array("q", (line for line in map(self._line.get, names) if line is not None))
        if len(lines) != len(self._prompt_tokens) or any(map(int.__ne__, lines, range(len(lines)))):
            self._write(lines)
        return Usage(
            sum(map(self._prompt_tokens.__getitem__, lines)),
            sum(map(self._completion_tokens.__getitem__, lines)),
        )

    def _write(self, lines: Iterable[int]) -> None:
        scratch = self._path.with_name(self._path.name + PART)
        with naming_full_disk(self._path):
            with self._path.open("rb") as source, scratch.open("wb") as stream:
                for line in lines:
                    start = self._starts[line]
                    stream.write(os.pread(source.fileno(), self._starts[line + 1] - start, start))
            scratch.replace(self._path)
