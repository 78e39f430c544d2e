"""Describe a record by what one can search for: its prompt, kind of harm, principles, verdicts, faults and score.

Texts of strangers are made visible here, so that what a form sends back is what a record has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from sys import intern
from typing import Any, NamedTuple

from constitutional_ai.records import (
    Answer,
    Comparison,
    Draft,
    Failure,
    GateAnswer,
    PreferenceLabel,
    Prompt,
    Response,
    RevisionChain,
    is_tie,
)
from constitutional_ai.safe_text import visible

NOT_READ = "not read"
OPENER = "opener cut off"
LONGEST = 200
"""Characters of a name. A longer one is cut, with its digest at the end, because it stands in addresses."""


class Facets(NamedTuple):
    """What one can search a record by. Equal texts are one object in memory."""

    kind: str = ""
    """Kind of its prompt; empty if that is not known."""
    harms: tuple[str, ...] = ()
    """Tags of its prompt: kinds of harm, or topics."""
    principles: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    """Models that wrote it, or the role of the model that did."""
    verdicts: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    score: float | None = None
    """An answer's score by the preference model; for a label P(a is better), and at the gate P(right), in [0, 1]."""


def prompt_of(record: Any) -> Prompt | None:
    """Return the prompt of a record, which may be in a nested record; None for a failure, which has none."""
    while not isinstance(record, Prompt):
        inner = ("prompt", "initial", "response", "comparison", "label")
        name = next((name for name in inner if hasattr(record, name)), None)
        if name is None:
            return None
        record = getattr(record, name)
    return record


def facets_of(record: Any) -> Facets:
    """Return the facets of any record of a run."""
    own = _own(record)
    prompt = prompt_of(record)
    kind, harms = (prompt.kind, prompt.tags) if prompt else ("", ())
    return Facets(
        intern(kind),
        _unique(harms),
        _unique(own.principles),
        _unique(own.models),
        _unique(own.verdicts),
        _unique(own.faults),
        own.score,
    )


def _own(record: Any) -> Facets:
    match record:
        case Draft() | Response():
            return Facets(models=(record.completion.model,))
        case RevisionChain(revisions=revisions):
            faults = [r.fault for r in revisions if r.fault] + [OPENER for r in revisions if r.cut]
            models = [record.initial.completion.model, *(r.revised.model for r in revisions)]
            return Facets(
                principles=tuple(r.principle for r in revisions), models=tuple(models), faults=tuple(faults)
            )
        case Comparison(a=a, b=b):
            return Facets(models=(a.model, b.model))
        case PreferenceLabel():
            return _label(record)
        case GateAnswer(label=label, right=right):
            verdict = "tie" if right is None else "right" if right else "wrong"
            own = _label(label)
            return own._replace(verdicts=(verdict, *own.verdicts), score=record.probability_right)
        case Answer():
            return _answer(record)
        case Failure(error=error):
            return Facets(faults=(error,))
    return Facets()


def _label(label: PreferenceLabel) -> Facets:
    tie = is_tie(label.probability_a)
    verdicts = ["tie" if tie else "prefers a" if label.probability_a > 0.5 else "prefers b"]
    verdicts += ["changes with the order"] if label.flipped else []
    return Facets(
        principles=tuple(j.principle for j in label.judgements),
        models=(label.comparison.a.model, label.comparison.b.model),
        verdicts=tuple(verdicts),
        score=label.probability_a,
    )


def _answer(answer: Answer) -> Facets:
    verb, not_verb = ("objects", "does not object")
    if answer.response.prompt.kind != "red_team":
        verb, not_verb = ("refuses", "does not refuse")
    verdict = {True: verb, False: not_verb, None: NOT_READ}[answer.verdict.objects]
    broken = answer.verdict.degenerate
    return Facets(
        models=(answer.model,),
        verdicts=(verdict,),
        faults=(broken,) if broken else (),
        score=answer.reward,
    )


def _unique(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(_short, dict.fromkeys(texts)))


def _short(text: str) -> str:
    shown = visible(text)
    if len(shown) > LONGEST:
        shown = f"{shown[:LONGEST]} … ({hashlib.sha256(shown.encode()).hexdigest()[:8]})"
    return intern(shown)
