"""Draft principles from the clauses of a document: the request to a model, its reply, the sieve, and the file to edit.

A clause is no principle: it explains, qualifies and repeats. A model drafts several candidates for it; what cannot be
read, what the linter finds fault with and what repeats another candidate is dropped. What is left is written to a file
in which every principle is marked ``draft: true``. No run accepts a draft: a person reads each beside its clause, edits
it, and deletes the mark. Without a model the file has an empty draft for each clause.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence

from rapidfuzz import fuzz, utils

from constitutional_ai.constitutions.clauses import Clause
from constitutional_ai.constitutions.constitution import SIDES, Constitution, Principle, dumped
from constitutional_ai.constitutions.lint import NEAR, lint
from constitutional_ai.safe_text import visible

LONGEST = 600
"""Letters of the longest text of a candidate; a principle is a sentence or two."""
SIDE = re.compile(rf"\W{{0,6}}({'|'.join(SIDES)})\W{{0,4}}:[*_\s]{{0,6}}(\S.*)", re.IGNORECASE)
QUOTED = re.compile(r"([\"“'])(.*)[\"”']$")
REQUEST = """\
Below is one clause of a document about how an AI assistant should behave. Turn what it asks for into three texts, in \
plain words and without names of people or companies. Write each on one line, as in the example.

Example clause: We hope that the assistant keeps confidences and does not pass on what people tell it.
CRITIQUE: Say which parts of your last reply pass on something that a person told you in confidence.
REVISION: Write your reply again without passing on anything that was told in confidence.
PREFERENCE: Which of these replies keeps confidences better?
UPHELD: You are a discreet assistant. You keep to yourself what people tell you.
BROKEN: You are an indiscreet assistant. You pass on what people tell you.

Clause: {clause}
"""
"""Ours. The example is about something that few documents say, so that copies of it are seen."""


def request(clause: Clause) -> str:
    """Return the request for one candidate."""
    return REQUEST.replace("{clause}", clause.text)


def candidate(clause: Clause, document: str, number: int, reply: str) -> Principle | None:
    """Return the candidate that a reply holds, as a draft; None if it lacks a critique, a revision or a preference."""
    texts: dict[str, str] = {}
    for line in reply.splitlines():
        if (match := SIDE.match(line)) and len(match[2]) <= LONGEST:
            text = match[2].strip().strip("*").strip()
            quoted = QUOTED.match(text)
            texts.setdefault(match[1].lower(), quoted[2] if quoted else text)
    if not all(texts.get(side) for side in SIDES[:3]):
        return None
    if not (texts.get("upheld") and texts.get("broken")):
        texts = {side: texts[side] for side in SIDES[:3]}
    name = f"{name_of(clause)}-{number}"
    return Principle.model_validate({"name": name, **texts, "source": clause.anchor(document), "draft": True})


def stub(clause: Clause, document: str) -> Principle:
    """Return an empty draft for a clause."""
    return Principle(name=name_of(clause), source=clause.anchor(document), draft=True)


def name_of(clause: Clause) -> str:
    """Return a name for the principles of a clause: the last words of its label and its line, which no other has.

    >>> name_of(Clause("Values > Being kind ¶2", 31, "…"))
    'being-kind-2-l31'
    """
    words = re.findall(r"\w+", clause.label.rpartition(" > ")[2].lower())
    return "-".join([*words[-6:], f"l{clause.line}"])


def fault_of(draft: Principle, earlier: Sequence[Principle]) -> str | None:
    """Return why a candidate is dropped: what the linter finds, or an earlier one that says the same; else None."""
    read = draft.model_copy(update={"draft": False})
    if findings := lint(Constitution(name="candidate", principles=(read,))):
        return findings[0].kind
    if _near(REQUEST_TEXTS, draft):
        return "copies the example"
    return "near-duplicate" if any(_near(one.texts, draft) for one in earlier) else None


def _near(texts: dict[str, str], draft: Principle) -> bool:
    """Return whether the draft's question, or its request for a revision, nearly is the one of ``texts``."""
    return any(
        fuzz.ratio(texts.get(side, ""), draft.texts.get(side, ""), processor=utils.default_process) >= NEAR
        for side in ("preference", "revision")
    )


REQUEST_TEXTS = {match[1].lower(): match[2] for line in REQUEST.splitlines() if (match := SIDE.match(line))}
"""The texts of the example, by side."""


def sifted(candidates: Sequence[Sequence[Principle | None]]) -> tuple[list[list[Principle]], Counter[str]]:
    """Return the candidates of each clause that are kept, and counts of all: kept, and dropped for each reason."""
    kept: list[list[Principle]] = []
    counts: Counter[str] = Counter({"kept": 0})
    before: list[Principle] = []
    for of_clause in candidates:
        kept.append([])
        for draft in of_clause:
            fault = "unreadable" if draft is None else fault_of(draft, before)
            counts[fault or "kept"] += 1
            if draft is not None and fault is None:
                kept[-1].append(draft)
                before.append(draft)
    return kept, counts


HELP = """\
# A principle has a 'critique' and a 'revision', or a 'preference', or all three; 'upheld' and 'broken' if you will.
# Correct what is written, write what is not, delete what the clause does not ask for, and then each 'draft: true'.
"""


def drafts_file(document: str, clauses: Sequence[Clause], drafts: Sequence[Sequence[Principle]]) -> str:
    """Return the text of a file to edit: each clause as a comment above its drafts."""
    head = dumped({"name": document, "description": f"Drafts from {document}, to be read and edited."})
    parts = [head, HELP, "principles:\n"]
    for clause, of_clause in zip(clauses, drafts, strict=True):
        parts.append(_comment(f"{clause.label} (line {clause.line}): {clause.text}"))
        for draft in of_clause:
            data = draft.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            parts.append(textwrap.indent(dumped([data]), "  "))
    return "\n".join(parts)


def _comment(text: str) -> str:
    """Return a text as lines of a YAML comment. Its own line breaks, of any kind, become spaces."""
    words = visible(" ".join(text.split()))
    return "".join(f"  # {line}\n" for line in textwrap.wrap(words, 108, break_on_hyphens=False))
