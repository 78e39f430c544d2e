"""Read tables with a header: CSV or TSV. Each row is a statement, or a principle with our own columns.

A column with the name of a field of a principle is that field (``critique``, ``revision``, ``preference``, ``weight``
…; ``tags`` and ``applies_to`` hold names between spaces or semicolons). Where there are no such texts, a column of
statements gives the preference question. Columns of votes become weights (``group_votes.py``); others are not read.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from constitutional_ai.constitutions.constitution import SIDES
from constitutional_ai.constitutions.entries import Entry, Imported, anchor
from constitutional_ai.constitutions.group_votes import agreement_by_group, agreement_in, consensus, is_of_votes
from constitutional_ai.data.lines import read_text
from constitutional_ai.errors import InputError

STATEMENTS = ("comment-body", "comment", "statement", "principle", "proposition", "trait", "definition", "text")
"""Columns of statements, the most telling name first."""
NAMES = ("name", "title", "label")
IDS = ("comment-id", "id")
LARGEST = 64_000_000
"""Bytes of the largest table; an export of every participant's votes is the largest."""
MOST_ROWS = 5_000


Votes = Callable[[Mapping[str, str]], list[float]]
"""A function of a row that returns the agreement in each group."""


class Row(NamedTuple):
    """A row of a table that is not blank."""

    line: int
    cells: dict[str, str]


def read_table(path: Path) -> Imported:
    """Return the principles in a table. Raises InputError naming the line that cannot be read."""
    header, rows = _rows(path)
    votes = agreement_in if is_of_votes(header) else None
    return _imported(path, header, rows, votes)


def read_polis(folder: Path) -> Imported:
    """Return the principles in a folder with a Polis export: by the groups that its participants' votes name, if there.

    Raises InputError naming the file and the line that cannot be read.
    """
    path, participants = folder / "comments.csv", folder / "participants-votes.csv"
    if (wide := folder / "comment-groups.csv").is_file():
        return read_table(wide)
    if not participants.is_file():
        return read_table(path)
    lines = _cells(participants)
    first, columns = next(lines, (1, []))
    if not {"group-id", "n-disagree"} <= set(columns):
        raise InputError(f"{participants}:{first}: no columns group-id and n-disagree, as Polis exports them.")
    try:
        by_group = agreement_by_group(columns, (cells for _, cells in lines))
    except ValueError as error:
        raise InputError(f"{participants}: {error}.") from error
    header, rows = _rows(path)
    return _imported(path, header, rows, partial(_looked_up, by_group))


def _looked_up(by_group: Mapping[str, list[float]], row: Mapping[str, str]) -> list[float]:
    return by_group.get(row.get("comment-id", ""), [])


def _imported(path: Path, header: list[str], rows: Iterator[Row], votes: Votes | None) -> Imported:
    ours = [side for side in SIDES if side in header]
    statement = next((name for name in STATEMENTS if name in header), None)
    if not ours and statement is None:
        raise InputError(
            f"{path}:1: no column of statements. Name one column 'statement', or several after the fields of a "
            f"principle: {', '.join(SIDES[:3])}."
        )
    table = list(rows)
    wanted = _moderated(table)
    entries: list[Entry] = []
    rejected = 0
    for line, cells in wanted:
        try:
            weight = consensus(votes(cells)) if votes else _weight(cells)
        except ValueError as error:
            raise InputError(f"{path}:{line}: {error}.") from error
        if weight is None:
            rejected += 1
            continue
        texts = (
            {side: cells[side] for side in ours if cells[side]}
            if ours
            else {"preference": _statement(path, line, cells, statement or "")}
        )
        if len(entries) == MOST_ROWS:
            raise InputError(f"{path}:{line}: more than {MOST_ROWS:,} principles. Split the table.")
        entries.append(_entry(path, line, cells, texts, weight))
    return Imported(entries, _note(rejected, len(table) - len(wanted)))


def _moderated(rows: list[Row]) -> list[Row]:
    """Return the rows that the moderators accepted (1) or, if they accepted none, did not reject (-1)."""
    accepted = [row for row in rows if row.cells.get("moderated") == "1"]
    return accepted or [row for row in rows if row.cells.get("moderated") != "-1"]


def _note(rejected: int, moderated: int) -> str:
    out = {
        "statements with which some group does not agree": rejected,
        "that the moderators did not accept": moderated,
    }
    counted = [f"{count} {what}" for what, count in out.items() if count]
    return f"Left out: {', '.join(counted)}." if counted else ""


def _entry(path: Path, line: int, cells: dict[str, str], texts: dict[str, str], weight: float) -> Entry:
    clause = next((cells[key] for key in IDS if cells.get(key)), None)
    entry: Entry = {**texts, "weight": weight, "source": anchor(path, line, clause)}
    if name := next((cells[key] for key in NAMES if cells.get(key)), None):
        entry["name"] = name
    for key in ("tags", "applies_to"):
        entry[key] = [word for word in re.split(r"[;\s]+", cells.get(key.replace("_", "-"), "")) if word]
    return entry


def _statement(path: Path, line: int, cells: dict[str, str], column: str) -> str:
    text = cells[column]
    if not any(map(str.isalpha, text)):
        raise InputError(f"{path}:{line}: '{column}' holds no words. Correct or delete this row.")
    return text.removesuffix(" Options:")


def _weight(cells: dict[str, str]) -> float:
    text = cells.get("weight") or "1"
    if not re.fullmatch(r"\d{0,12}\.?\d{1,30}", text, re.ASCII) or not float(text):
        raise ValueError(f"weight: {text[:20]!r} is no number above 0")
    return float(text)


def _rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    """Return the names of the columns, in lower case, and the rows."""
    lines = _cells(path)
    first, header = next(lines, (1, []))
    header = [name.strip().lower().replace("_", "-") for name in header]
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise InputError(f"{path}:{first}: two columns are named '{twice[0][:40]}'. Rename one.")
    return header, (_row(path, line, header, cells) for line, cells in lines)


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise InputError(
            f"{path}:{line}: {len(cells)} cells, but the header has {len(header)}. Put quotation marks around texts "
            "with commas."
        )
    return Row(line, {name: cell.strip() for name, cell in zip(header, cells, strict=True)})


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not blank, with the line on which it begins."""
    text = read_text(path, largest=LARGEST)
    head = text.partition("\n")[0]
    delimiter = max("\t;,", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{line}: not a table ({error}). Correct this line.") from error
