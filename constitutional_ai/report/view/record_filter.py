"""Choose records by what a reader asks for: the fields of a form in the address, and a text that a record holds."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, NamedTuple, get_args, get_type_hints

from constitutional_ai.report.view.record_index import SOURCES, Entry, RecordIndex
from constitutional_ai.safe_text import visible

ORDERS = {
    "": "as recorded",
    "highest": "highest score first",
    "lowest": "lowest score first",
}
FIELDS: dict[str, tuple[str, Callable[[Entry], tuple[str, ...]]]] = {
    "stage": ("Stage", lambda entry: (entry.stage,)),
    "kind": ("Kind of prompt", lambda entry: (entry.facets.kind,) if entry.facets.kind else ()),
    "harm": ("Kind of harm, or topic", lambda entry: entry.facets.harms),
    "principle": ("Principle", lambda entry: entry.facets.principles),
    "model": ("Written by", lambda entry: entry.facets.models),
    "verdict": ("Verdict", lambda entry: entry.facets.verdicts),
    "fault": ("Fault", lambda entry: entry.facets.faults),
}
"""Label and values of every field that can be chosen from a list, by its name in the address."""
MOST_OPTIONS = 500
"""Options of a list: the most common values."""


@dataclass(frozen=True)
class Filter:
    """What a reader asks for. Empty fields ask for nothing."""

    chosen: Mapping[str, str]
    """The value of each field of ``FIELDS`` that is chosen."""
    text: str = ""
    low: float | None = None
    """The lowest score."""
    high: float | None = None
    order: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Filter:
        """Return the filter of an address. What cannot be read asks for nothing."""
        return cls(
            {name: visible(query[name]) for name in FIELDS if query.get(name)},
            query.get("text", "").strip(),
            _number(query.get("low", "")),
            _number(query.get("high", "")),
            query.get("order", "") if query.get("order") in ORDERS else "",
        )

    @property
    def query(self) -> dict[str, str]:
        """The fields as they stand in an address."""
        more = {"text": self.text, "order": self.order}
        ends = {"low": self.low, "high": self.high}
        numbers = {name: f"{end:g}" for name, end in ends.items() if end is not None}
        return {**self.chosen, **{k: v for k, v in more.items() if v}, **numbers}

    def passes(self, entry: Entry) -> bool:
        """Return whether a record is asked for, its text aside."""
        if any(value not in FIELDS[name][1](entry) for name, value in self.chosen.items()):
            return False
        if self.low is None and self.high is None:
            return True
        score = entry.facets.score
        return (
            score is not None
            and (self.low is None or score >= self.low)
            and (self.high is None or score <= self.high)
        )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def matching(index: RecordIndex, wanted: Filter) -> list[Entry]:
    """Return the records that are asked for, in the order that is asked for."""
    passing: Iterable[Entry] = filter(wanted.passes, index)
    if wanted.text:
        holds = text_test(wanted.text)
        passing = (entry for entry, line in index.lines(passing) if holds(line))
    if not wanted.order:
        return list(passing)
    sign = -1 if wanted.order == "highest" else 1
    scored = [entry for entry in passing if entry.facets.score is not None]
    return sorted(scored, key=lambda entry: sign * (entry.facets.score or 0.0))


def text_test(text: str) -> Callable[[bytes], bool]:
    """Return a function that says whether a record, a line of JSON, holds a text in any of its values.

    Capital and small letters are alike. A line is parsed only if the text may stand in it as a key or a number.
    """
    folded = text.casefold()
    form = json.dumps(folded, ensure_ascii=False)[1:-1]
    words = re.findall(r"[^\W\d_]+", folded)
    may_be_key = all(any(word in key for key in _keys()) for word in words)

    def holds(line: bytes) -> bool:
        raw = line.decode("utf-8", "replace").casefold()
        if "\\\\" not in raw and "\\u" not in raw:  # else what is escaped cannot be told from letters
            for escape in ("\\n", "\\t", "\\r"):
                raw = raw.replace(escape, " ")
            if form not in raw or not may_be_key:
                return form in raw  # with a word that is in no key, all of it is in one text
        return any(folded in value.casefold() for value in texts_in(json.loads(line)))

    return holds


@cache
def _keys() -> frozenset[str]:
    """Return all words of a line that are not in its texts."""
    keys, types, seen = {"true", "false", "null"}, [row_type for *_, row_type in SOURCES], set()
    while types:
        one = types.pop()
        if is_dataclass(one) and one not in seen:
            seen.add(one)
            keys |= {field.name for field in fields(one)}
            types += [part for hint in get_type_hints(one).values() for part in _parts(hint)]
    return frozenset(keys)


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for inner in get_args(hint):
        yield from _parts(inner)


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in a value of JSON; keys are not among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for inner in value.values() for text in texts_in(inner))
    elif isinstance(value, list):
        yield from (text for inner in value for text in texts_in(inner))


class Choice(NamedTuple):
    """A list of the form: the values that records have, with the number of records that have each."""

    name: str
    label: str
    options: list[tuple[str, int]]


def choices(index: RecordIndex) -> list[Choice]:
    """Return the lists of the form; a field that no record has is left out."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in FIELDS}
    for entry in index:
        for name, (_, values) in FIELDS.items():
            counts[name].update(values(entry))
    return [
        Choice(name, label, sorted(counts[name].most_common(MOST_OPTIONS)))
        for name, (label, _) in FIELDS.items()
        if counts[name]
    ]
