"""Compare a constitution with the document it was made of, by its anchors: which clauses have no principle, which
principles no clause, and which clauses nearly repeat one another. Words are compared, not meaning.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rapidfuzz import fuzz, process, utils

from constitutional_ai.constitutions.clauses import Clause
from constitutional_ai.constitutions.constitution import Constitution, Principle, Source
from constitutional_ai.constitutions.lint import NEAR
from constitutional_ai.safe_text import visible

ROWS_AT_ONCE = 256
"""Clauses compared with all others at once, which bounds the memory to 256 rows of numbers."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far the principles of a constitution cover the clauses of a document."""

    document: str
    clauses: tuple[Clause, ...]
    principles: dict[str, tuple[Principle, ...]]
    """The principles and drafts of each clause that has one, by its label. An empty draft counts for nothing."""
    uncovered: tuple[Clause, ...]
    """Clauses without a principle."""
    unanchored: tuple[Principle, ...]
    """Principles without an anchor, with one in another document, or in a clause that the document lacks."""
    near: tuple[tuple[Clause, Clause, float], ...]
    """Clauses that are near-duplicates, with their similarity in per cent."""


def coverage(constitution: Constitution, document: str, clauses: Sequence[Clause]) -> Coverage:
    """Return the coverage of the clauses of the file named ``document``."""
    known = _endings(clauses)
    principles: dict[str, tuple[Principle, ...]] = {}
    unanchored = []
    for principle in constitution.principles:
        label = _label(principle.source, document, known)
        if label is None:
            unanchored.append(principle)
        elif principle.texts:
            principles[label] = (*principles.get(label, ()), principle)
    uncovered = tuple(clause for clause in clauses if clause.label not in principles)
    return Coverage(
        document, tuple(clauses), principles, uncovered, tuple(unanchored), tuple(near_clauses(clauses))
    )


def _label(source: Source | None, document: str, known: Mapping[str, str | None]) -> str | None:
    """Return the label of the clause that an anchor means; None if it means none, or more than one."""
    if source is None or source.clause is None or Path(source.document).stem != Path(document).stem:
        return None
    return known.get(_key(source.clause))


def _endings(clauses: Sequence[Clause]) -> dict[str, str | None]:
    """Return the label for each of its endings that no other label has: editions differ in their upper headings."""
    labels: dict[str, str | None] = {}
    for clause in clauses:
        parts = clause.label.split(" > ")
        for start in range(1, len(parts)):
            key = _key(" > ".join(parts[start:]))
            labels[key] = None if key in labels else clause.label
    return labels | {_key(clause.label): clause.label for clause in clauses}


def _key(label: str) -> str:
    """Return a label without the marks and capitals in which copies of a document differ."""
    return " ".join(label.casefold().replace("’", "'").split())


def coverage_lines(covered: Coverage) -> list[str]:
    """Return the coverage as lines of text."""
    of, held = len(covered.clauses), len(covered.principles)
    drafts = sum(all(p.draft for p in of_clause) for of_clause in covered.principles.values())
    only = f", {drafts} of them only a draft" if drafts else ""
    lines = [f"{covered.document}: {held} of {of} clauses have a principle{only}"]
    lines += [f"no principle: line {clause.line}: {clause.label}" for clause in covered.uncovered]
    lines += [f"no clause: {principle.name}" for principle in covered.unanchored]
    lines += [
        f"near-duplicates, {int(percent)} %: line {one.line}: {one.label}; line {other.line}: {other.label}"
        for one, other, percent in covered.near
    ]
    return list(map(visible, lines))


def coverage_csv(covered: Coverage) -> str:
    """Return a row for each clause: its label, line, length in words, and principles."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clause", "line", "words", "principles"])
    for clause in covered.clauses:
        names = "; ".join(p.name for p in covered.principles.get(clause.label, ()))
        writer.writerow([clause.label, clause.line, len(clause.text.split()), names])
    return text.getvalue()


def near_clauses(clauses: Sequence[Clause]) -> Iterator[tuple[Clause, Clause, float]]:
    """Yield each two clauses that are near-duplicates, and their similarity in per cent."""
    plain = [utils.default_process(clause.text) or clause.text for clause in clauses]
    for start in range(0, len(plain), ROWS_AT_ONCE):
        rows, others = plain[start : start + ROWS_AT_ONCE], plain[start:]
        likeness = process.cdist(rows, others, scorer=fuzz.ratio, score_cutoff=NEAR, dtype=np.float32)
        for row, column in zip(*np.nonzero(np.triu(likeness, k=1)), strict=True):
            yield clauses[start + row], clauses[start + column], float(likeness[row, column])
