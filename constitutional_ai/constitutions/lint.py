"""Find likely mistakes in a constitution before a run, and list the changes between two constitutions.

The checks match English words, not meaning: a finding may be a false alarm, and no findings prove nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from rapidfuzz import fuzz, utils

from constitutional_ai.constitutions.constitution import Constitution, Principle

Kind = Literal[
    "duplicate",
    "near-duplicate",
    "transcript",
    "option letter",
    "asks nothing",
    "unseen",
]
Side = Literal["critique", "revision", "preference", "proposition"]
NEAR = 90.0
"""Similarity in per cent from which two texts are near-duplicates; case and punctuation do not count."""

MARKS: dict[Kind, tuple[str, str]] = {
    "transcript": (
        r"\b(?:Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision|Options|The answer is|"
        r"So the answer is|Let's think step by step):|\[\[\[|\]\]\]",
        "is transcript markup, which the prompts add themselves",
    ),
    "option letter": (
        r"\([A-F]\)|\b(?:option|answer|response|choice|reply) [A-F]\b",
        "is the letter of an answer, and these letters are random",
    ),
}
"""Texts that no principle should have, and why."""
REQUEST_VERBS: dict[Side, str] = {
    "critique": "check|comment|consider|critique|criticise|criticize|describe|discuss|examine|explain|find|give|"
    "identify|imagine|list|look|make|name|note|point|quote|read|say|state|suppose|tell|think|write",
    "revision": "add|amend|answer|change|correct|cut|edit|fix|give|improve|leave|make|mend|modify|remove|rephrase|"
    "replace|respond|reword|rewrite|revise|say|shorten|soften|take|tell|turn|write",
    "proposition": "answer",
    "preference": "choose|compare|decide|favor|favour|identify|judge|name|pick|prefer|rank|say|select|which",
}
UNSEEN = {  # the feedback model sees only the conversation and two answers
    r"\b(?:previous|earlier|past|other) (?:conversations|chats|sessions)\b": "other conversations",
    r"\b(?:look(?:ing)? up|google|search(?:ing)? (?:the )?(?:web|internet|online))\b": "the internet",
    r"\bthis (?:image|picture|photo|screenshot|video|recording)\b": "pictures or recordings",
    r"\b(?:three|four|five|six) (?:assistant )?(?:responses|answers|replies|options)\b": "more than two answers",
    r"\b(?:the|its|your) (?:critique|revision)\b": "critiques and revisions",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is likely wrong."""

    principle: str
    kind: Kind
    message: str

    def __str__(self) -> str:
        return f"{self.principle}: {self.kind}: {self.message}"


def lint(constitution: Constitution) -> list[Finding]:
    """Return the findings about each principle, in order."""
    findings = [*_duplicates(constitution)]
    for principle in constitution.principles:
        for side in REQUEST_VERBS:
            if text := getattr(principle, side):
                findings += _wording(principle.name, side, text)
    order = [p.name for p in constitution.principles]
    return sorted(findings, key=lambda finding: order.index(finding.principle))


def _duplicates(constitution: Constitution) -> Iterator[Finding]:
    """Find principles that are written twice, and so drawn twice as often. A pair of requests counts as one text."""
    pairs = [(p.name, f"{p.critique or ''}\n{p.revision}") for p in constitution.for_revision]
    questions = [(p.name, p.preference or "") for p in constitution.for_preference]
    propositions = [(p.name, p.proposition or "") for p in constitution.propositions]
    for side, texts in (("requests", pairs), ("question", questions), ("proposition", propositions)):
        plain = [(name, utils.default_process(text) or text) for name, text in texts]
        for (first, one), (second, other) in combinations(plain, 2):
            similarity = fuzz.ratio(one, other, score_cutoff=NEAR)
            if similarity == 100.0:
                yield Finding(second, "duplicate", f"the same {side} as '{first}', which counts twice")
            elif similarity:
                yield Finding(
                    second, "near-duplicate", f"{int(similarity)} % similar to the {side} of '{first}'"
                )


def _wording(name: str, side: Side, text: str) -> Iterator[Finding]:
    for kind, (pattern, why) in MARKS.items():
        if mark := re.search(pattern, text):
            yield Finding(name, kind, f"{side}: {mark[0]!r} {why}")
    if "?" not in text and not re.search(rf"\b(?:{REQUEST_VERBS[side]})\b", text, re.IGNORECASE):
        yield Finding(name, "asks nothing", f"{side}: neither a question nor a request; write what to do")
    if side in ("preference", "proposition"):
        for pattern, what in UNSEEN.items():
            if seen := re.search(pattern, text, re.IGNORECASE):
                yield Finding(name, "unseen", f"{seen[0]!r}: the feedback model is not shown {what}")


def diff(old: Constitution, new: Constitution) -> list[str]:
    """Return lines that describe the changes: the versions, then each principle, matched by name."""
    lines = [f"{old.name} {old.digest} -> {new.name} {new.digest}"]
    before, after = ({p.name: p for p in c.principles} for c in (old, new))
    for name, principle in after.items():
        if name in before:
            lines += _changes(before[name], principle)
        else:
            lines.append(f"added   {name}: {principle.preference or principle.revision}")
    removed = [p for name, p in before.items() if name not in after]
    lines += [f"removed {p.name}: {p.preference or p.revision}" for p in removed]
    if len(lines) == 1:
        lines.append("the same" if old.digest == new.digest else "only the order of the principles changed")
    return lines


def _changes(old: Principle, new: Principle) -> list[str]:
    return [
        f"changed {old.name}: {field}: {getattr(old, field)!r} -> {getattr(new, field)!r}"
        for field in Principle.model_fields
        if getattr(old, field) != getattr(new, field)
    ]
