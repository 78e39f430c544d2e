"""Read the statements of a text: one a line, or the items of a flat Markdown list below headings.

A list whose every item is a named definition is read as such (``definitions.py``). Anything else that has structure
(prose beside a list, tables, nested lists, numbers) is refused with its line: a heading, a name or a row of numbers
never becomes a principle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from constitutional_ai.constitutions.definitions import definitions_of_list
from constitutional_ai.constitutions.entries import Entry, anchor
from constitutional_ai.errors import InputError

ITEM = re.compile(r"(?:[-*+•–]|\d+[.)])[ \t]+(?:\[[ xX]\][ \t]+)?(?=\S)")
HEADING = re.compile(r"#{1,6}(?:[ \t]|$)|(?:\*\*|__)[^*_]+(?:\*\*|__):?$")
RULE = re.compile(r"(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|=+)$")
EMPHASIS = re.compile(r"(\*\*|__|(?<!\w)[*_](?=\S))(.+?)(?<=\S)\1")
NUMBER = r"[-+]?\d+(?:[.,]\d+)?\s*%?"
MARK = r"(\*\*|__|\*|_|`)"
RATING = r"(?:weight(?:ing)?|votes?|score|priority|importance|rank)"
STRUCTURE = {  # the beginning of what is no statement → what it is
    re.compile(r"\||.*\|.*\||[^\t]*\t|.*[,;]\d+(?:\.\d+)?[,;]|[-\w]{0,20}[,;]\S"): "a row of a table",
    re.compile(r"```|~~~"): "a block of code",
    re.compile(r">"): "a quotation",
    re.compile(r"<[!/a-zA-Z]"): "HTML",
    re.compile(r".*\]\([^)]*\)|\[[^\]]+\]:|.*\[\^"): "a text with a link",
    re.compile(r"[\W\d_]*$"): "a text without words",
    re.compile(
        rf"{RATING}\W{{0,3}}\d|.*\b{RATING}\W{{0,3}}(?:of |is )?{NUMBER}\W*$"
        rf"|.*[(\[]{RATING}\b[^)\]]*[)\]]\W*$|.*\b{RATING}\s*[:=]\s*\S+$",
        re.I,
    ): "a text with its weight",
    re.compile(
        rf"#?{NUMBER}\s|.*(?:[,;:=|(]\s*|\s[-–—]\s+){NUMBER}\)?$|.*[(\[—–]\s*\d[^)\]]*[)\]]?$"
    ): "a text with a number at one end",
    re.compile(  # "0.8: ...", "[3] ...", "... 80 %", "... 12 votes", "... ×3"
        rf"[(\[]?#?{NUMBER}(?:[)\]][:.]?|[:;=.)\]]|\s?[×x])\s|[×x]\s?\d"
        rf"|.*(?:[.!?]\s+{NUMBER}|\s\d*[.,]\d{{1,2}}|\d\s?%)$|.*(?<!\d)\s[(\[]?[×x*]\s?{NUMBER}\W*$"
        rf"|.*\s{NUMBER}\s*(?:up)?votes?[)\]]?$|.*[.,;:(\[–—-]\s*{NUMBER}\s*(?:up)?votes?\W*$"
    ): "a text with a number at one end",
    re.compile(rf".*{MARK}{NUMBER}\1\W*$|{MARK}{NUMBER}\W?\2"): "a text with a number at one end",
    re.compile(r"(\*\*|__|`).{1,60}?:?\1\s*[-:(–—]|(\*\*|__).{1,60}?:\2"): "a named definition",
    re.compile(rf"[^.?!:]{{1,60}}[(\[](?:weight\W*)?{NUMBER}[)\]]\s*[-:–—.]"): "a named definition",
    re.compile(
        r"[\"']?(?:name|id|title|label|weight|value|definition|description|text|statement|principle)[\"']?\s*[:=]",
        re.I,
    ): "a named field",
    re.compile(r".*:$"): "a heading",
}
LEAST_WORDS = 6
"""A line of fewer words without a full stop, among lines that mostly end with one, is taken for a heading."""
ADVICE = (
    "Write one statement a line, without marks, or as one flat list. To make principles of a prose document, type: "
    "cai constitution draft"
)


class Line(NamedTuple):
    """A line that is not blank."""

    number: int
    indent: int
    text: str


def statements(path: Path, text: str) -> list[Entry]:
    """Return the statements of a text as preference questions, or its named definitions.

    Raises InputError naming the first line that is neither a statement nor a heading.
    """
    lines = _lines(text)
    marked = any(mark.match(line.text) for line in lines for mark in (ITEM, HEADING, RULE))
    if marked or path.suffix.lower() in {".md", ".markdown"}:
        return _items(path, lines)
    plain = [_checked(path, line.number, line.text) for line in lines]
    ended = [statement.endswith((*'.?!…"”)',)) for statement in plain]
    for line, statement, has_end in zip(lines, plain, ended, strict=True):
        if not has_end and 2 * sum(ended) >= len(lines) and len(statement.split()) < LEAST_WORDS:
            raise InputError(f"{path}:{line.number}: a heading, not a statement. {ADVICE}")
    return [_entry(path, line.number, statement) for line, statement in zip(lines, plain, strict=True)]


def _entry(path: Path, line: int, statement: str) -> Entry:
    return {"preference": statement, "source": anchor(path, line)}


def refuse_marks(path: Path, place: str, text: str) -> None:
    """Raise InputError if a text has the marks of a heading, an item, a table or a named field."""
    marked = next(
        (what for mark, what in {ITEM: "an item of a list", HEADING: "a heading"}.items() if mark.match(text)),
        "",
    )
    if what := marked or _structure(text):
        raise InputError(f"{path}: {place} is {what}, not a statement. {ADVICE}")


def _lines(text: str) -> list[Line]:
    """Return the lines, without those underlined as headings (``Values`` above ``======``) and their underlines."""
    lines = [
        Line(number, len(line) - len(line.lstrip()), line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    underlined = {
        over.number
        for over, under in pairwise(lines)
        if re.fullmatch(r"={2,}|-{2,}", under.text)
        and under.number == over.number + 1
        and not ITEM.match(over.text)
    }
    return [line for line in lines if line.number not in underlined]


def _items(path: Path, lines: Sequence[Line]) -> list[Entry]:
    """Return the items of a flat list, without headings and rules."""
    items: list[tuple[int, str]] = []
    ends: list[Line] = []  # the last line of each item
    for line in lines:
        rule = RULE.match(line.text)
        mark = None if rule else ITEM.match(line.text)
        if mark and items and line.indent > ends[0].indent + 1:
            raise InputError(f"{path}:{line.number}: a list within a list. {ADVICE}")
        if rule or HEADING.match(line.text) or (line.text.endswith(":") and not mark):
            continue
        if mark:
            items.append((line.number, line.text[mark.end() :]))
            ends.append(line)
        elif items and line.indent > ends[-1].indent and line.number == ends[-1].number + 1:
            first, so_far = items[-1]  # a statement that goes on in the next line
            _checked(path, line.number, line.text)
            items[-1], ends[-1] = (first, f"{so_far} {line.text}"), ends[-1]._replace(number=line.number)
        else:
            raise InputError(f"{path}:{line.number}: text outside the list of statements. {ADVICE}")
    if items and (named := definitions_of_list(path, items)):
        return named
    return [_entry(path, number, _checked(path, number, item)) for number, item in items]


def _checked(path: Path, number: int, text: str) -> str:
    """Return a statement without emphasis. Raises InputError if it has another structure."""
    text = text.removesuffix(" Options:")  # which our prompts add again (pitfall 16)
    if what := _structure(text):
        raise InputError(f"{path}:{number}: {what}, not a statement. {ADVICE}")
    return EMPHASIS.sub(r"\2", text)


def _structure(text: str) -> str | None:
    """Return what the text is instead of a statement, with its marks of emphasis or without them; else None."""
    texts = {text, EMPHASIS.sub(r"\2", text)}
    return next((what for mark, what in STRUCTURE.items() if any(map(mark.match, texts))), None)
