"""Arrange all that a run recorded for one prompt, stage by stage, with the words that each revision changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.metrics.word_changes import WordChanges, word_changes
from constitutional_ai.records import Comparison, Prompt, Revision, RevisionChain
from constitutional_ai.report.view.facets import prompt_of
from constitutional_ai.report.view.record_index import Entry, RecordIndex
from constitutional_ai.runs import layout
from constitutional_ai.sl_cai.clean import WHY


class Round(NamedTuple):
    """A round of revision."""

    number: int
    revision: Revision
    principle: Principle | None
    """The principle as it was used; None if the run's constitution is another by now."""
    fault: str
    """Why the revision was left out; empty if it was not."""
    changes: WordChanges
    """What it changed in the answer that it revises."""


class Section(NamedTuple):
    """A record on the page of its prompt."""

    entry: Entry
    kind: str
    """Name of the record's type."""
    record: Any
    rounds: tuple[Round, ...]
    """The rounds of a chain; empty for other records."""


class Life(NamedTuple):
    """Everything that a run recorded for one prompt."""

    prompt: Prompt | None
    """None if only failures are recorded."""
    sections: tuple[Section, ...]


def life_of(index: RecordIndex, prompt: str, constitution: Constitution | None) -> Life:
    """Return the life of a prompt. A pair that was labelled is shown with its label only."""
    entries = index.by_prompt.get(prompt, [])
    labelled = {entry.id for entry in entries if _is_label(entry)}
    records = [(entry, index.record(entry)) for entry in entries]
    sections = tuple(
        Section(entry, type(record).__name__, record, tuple(_rounds(record, constitution)))
        for entry, record in records
        if not (isinstance(record, Comparison) and entry.id in labelled)
    )
    return Life(next((p for _, record in records if (p := prompt_of(record))), None), sections)


def _is_label(entry: Entry) -> bool:
    return (entry.stage, entry.file) == (layout.PREFERENCE_LABELS, layout.RECORDS)


def answers_of(chain: RevisionChain) -> list[str]:
    """Return the text of each round, of which 0 is the initial answer."""
    return [chain.initial.text, *(revision.revised.text for revision in chain.revisions)]


def _rounds(record: Any, constitution: Constitution | None) -> Iterator[Round]:
    if not isinstance(record, RevisionChain):
        return
    known = constitution is not None and constitution.digest == record.constitution
    principles = {p.name: p for p in constitution.principles} if constitution and known else {}
    for number, revision in enumerate(record.revisions, start=1):
        before = last_sound(record.initial.text, record.revisions[: number - 1])
        fault = WHY.get(revision.fault, revision.fault) if revision.fault else ""
        changes = word_changes(before, revision.revised.text)
        yield Round(number, revision, principles.get(revision.principle), fault, changes)


def last_sound(initial: str, revisions: Sequence[Revision]) -> str:
    """Return the answer that the next round revises: that of the last revision without a fault."""
    sound = (revision.revised.text for revision in reversed(revisions) if revision.fault is None)
    return next(sound, initial)
