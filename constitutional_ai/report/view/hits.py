"""Show the records that were chosen in short: the request, and what the record says, or the place of the search."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from constitutional_ai.records import (
    Answer,
    Comparison,
    Draft,
    Failure,
    GateAnswer,
    PreferenceLabel,
    Response,
    RevisionChain,
)
from constitutional_ai.report.view.facets import prompt_of
from constitutional_ai.report.view.record_filter import texts_in
from constitutional_ai.report.view.record_index import Entry, RecordIndex

LONG = 220
"""Characters of a text in a list."""
BEFORE = 80
"""Characters shown before what was searched for."""


class Hit(NamedTuple):
    """A record in a list."""

    entry: Entry
    request: str
    """The prompt's last turn; empty for a failure."""
    says: str
    """What the record adds to its prompt."""
    place: tuple[str, str, str] | None
    """Text before the text that was searched for, that text, and the text after it."""


def hits(index: RecordIndex, entries: Iterable[Entry], text: str) -> Iterator[Hit]:
    """Yield the records in short. ``text`` is what was searched for; empty if nothing was."""
    for entry in entries:
        record = index.record(entry)
        prompt = prompt_of(record)
        request = prompt.conversation[-1].content if prompt and prompt.conversation else ""
        place = _place(index.line(entry), text) if text else None
        yield Hit(entry, _short(request), _short(_says(record)), place)


def _says(record: Any) -> str:
    match record:
        case Draft(text=text) | Response(text=text) | Failure(message=text):
            return text
        case RevisionChain():
            return record.answer
        case Comparison(a=a, b=b) | PreferenceLabel(comparison=Comparison(a=a, b=b)):
            return f"a: {_short(a.text)}\nb: {_short(b.text)}"
        case GateAnswer():
            return _says(record.label)
        case Answer():
            return record.response.text
    return ""


def _short(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]} …"


def _place(line: bytes, text: str) -> tuple[str, str, str] | None:
    wanted = re.compile(re.escape(text), re.IGNORECASE)
    places = ((value, match) for value in texts_in(json.loads(line)) if (match := wanted.search(value)))
    value, match = next(places, ("", None))
    if match is None:
        return None
    start, end = max(0, match.start() - BEFORE), match.end() + LONG
    return (
        f"{'… ' if start else ''}{value[start : match.start()]}",
        match[0],
        f"{value[match.end() : end]}{' …' if end < len(value) else ''}",
    )
