"""Read rows of data from JSON lines, a JSON list, CSV or Parquet, each row with its place in the file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from constitutional_ai.data.hub_files import local_file
from constitutional_ai.data.lines import LINE_END, read_bytes, read_items, read_text
from constitutional_ai.errors import InputError, missing_package

DELIMITERS = ",;\t"
INDEX = {"", "Unnamed: 0", "__index_level_0__"}
"""Names of the column of row numbers that pandas adds."""
csv.field_size_limit(2**31 - 1)  # its default, 131,072 characters, is less than a long dialogue


def read_rows(path: Path, hint: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row of a file as a dict, with its number from 1: the line on which it begins, in Parquet the row.

    The format is that of the suffix, with or without ``.gz``: ``.csv`` and ``.tsv``, ``.parquet``, else JSON lines or
    a JSON list. A path ``hf://datasets/OWNER/NAME/FILE`` is a file of the hub. Raises InputError if the file cannot be
    read, or naming the line that is no row.
    """
    path = local_file(path)
    kind = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    if kind in {".csv", ".tsv"}:
        yield from _csv_rows(path, read_text(path, hint))
    elif kind == ".parquet":
        yield from _parquet_rows(path, read_bytes(path, hint))
    else:
        for number, row in read_items(path, hint):
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: not a JSON object. Correct or delete it.")
            yield number, row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a table whose first line names its columns. Empty cells are left out of a row."""
    before = 0
    if text.startswith(("sep=", '"sep=')):  # the first line of Excel's own dialect
        text, before = "".join(LINE_END.split(text, maxsplit=1)[1:]), 1
    first = LINE_END.split(text.lstrip(), maxsplit=1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=first.count), strict=True)
    header: Sequence[str] | None = None
    line = before + 1
    try:
        for cells in reader:
            if header is None and any(cells):
                header = _header(path, line, cells)
            elif header is not None and any(cell.strip() for cell in cells):
                yield line, _csv_row(path, line, header, cells)
            line = before + reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{line}: not CSV ({error}). Correct this row.") from error


def _header(path: Path, line: int, cells: Sequence[str]) -> Sequence[str]:
    names = [cell.strip() for cell in cells]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(f"{path}:{line}: two columns are named '{twice[0]}'. Rename one.")
    return names


def _csv_row(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    if any(cell.strip() for cell in cells[len(header) :]):
        raise InputError(
            f"{path}:{line}: {len(cells)} cells, but the first line names {len(header)} columns. Put quotation marks "
            "around cells that hold the separator."
        )
    named = [(name, cell) for name, cell in zip(header, cells, strict=False) if name not in INDEX and cell]
    return {name: _cell(path, line, name, cell) for name, cell in named}


def _cell(path: Path, line: int, name: str, cell: str) -> Any:
    """Return the text of a cell, or the messages that it holds as JSON."""
    start = "".join(cell[:40].split())
    if not start.startswith(('[{"', "[{'", '{"role"', "{'role'", '{"messages"', "{'messages'")):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}:{line}: {name}: holds messages that are not JSON. Save the table as Parquet or JSON lines instead."
        ) from error


def _parquet_rows(path: Path, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(f"cannot read {path}: {missing_package('pyarrow', 'local')}") from error
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            yield number, {name: value for name, value in row.items() if name not in INDEX}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not Parquet that can be read ({' '.join(str(error).split())}).") from error
