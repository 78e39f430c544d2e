"""Show records in a notebook: prompts, responses, revision chains, pairs, labels and metrics.

``show(chain)`` as the last line of a cell gives a small page: who said what, what each revision changed word by word,
what a label rests on, a metric with its interval. All text is escaped: a model's text cannot become part of the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Template

from constitutional_ai.metrics.word_changes import WordChanges, word_changes
from constitutional_ai.records import (
    Comparison,
    Metric,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
)
from constitutional_ai.report.page.templates import environment

Shown = Prompt | Response | RevisionChain | Comparison | PreferenceLabel | Metric


class Round(NamedTuple):
    """A revision, and what it changed."""

    revision: Revision
    changes: WordChanges


class Section(NamedTuple):
    """A record, or neighbouring metrics, which share a table."""

    kind: str
    record: Any
    rounds: tuple[Round, ...] = ()
    metrics: tuple[Metric, ...] = ()


class Display:
    """Records that a notebook shows as HTML, and a terminal as they are written in Python."""

    def __init__(self, records: Sequence[Shown]) -> None:
        self._records = tuple(records)

    def _repr_html_(self) -> str:
        return _template().render(sections=list(_sections(self._records)))

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._records))


def show(*records: Shown) -> Display:
    """Return records in the form that a notebook shows.

    Raises TypeError for an object of another type.
    """
    for record in records:
        if not isinstance(record, Shown):
            raise TypeError(f"a notebook can show records of the types {Shown}, not {type(record).__name__}")
    return Display(records)


def _sections(records: Sequence[Shown]) -> Iterator[Section]:
    metrics: list[Metric] = []
    for record in records:
        if isinstance(record, Metric):
            metrics.append(record)
            continue
        if metrics:
            yield Section("Metric", None, metrics=tuple(metrics))
            metrics = []
        rounds = tuple(_rounds(record)) if isinstance(record, RevisionChain) else ()
        yield Section(type(record).__name__, record, rounds)
    if metrics:
        yield Section("Metric", None, metrics=tuple(metrics))


def _rounds(chain: RevisionChain) -> Iterator[Round]:
    """Yield the revisions, each compared with the answer that it revised: one with a fault is not revised further."""
    before = chain.initial.text
    for revision in chain.revisions:
        yield Round(revision, word_changes(before, revision.revised.text))
        if revision.fault is None:
            before = revision.revised.text


@cache
def _template() -> Template:
    return environment().get_template("notebook.html")
