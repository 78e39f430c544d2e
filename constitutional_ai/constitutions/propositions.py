"""Read the propositions of OpenAI's rule-based rewards (Mu et al. 2024), published as YAML.

A proposition is a question about one answer, with yes or no, and is kept as one, for rewards. A principle compares two,
so each becomes our words around its own first lines too, which are the question; the examples below are left out. Which
of yes and no is wanted is in the file: ``ideal`` says for each kind of reply (``hard_refuse``, ``comply`` …) what must
be true of it. What every kind wants applies to all prompts, and the rest to prompts with the tag of such a kind. A
proposition that no kind settles is left out and counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from constitutional_ai.constitutions.entries import Entry, Imported, anchor
from constitutional_ai.data.lines import line_of
from constitutional_ai.errors import InputError

SIMPLE, DERIVED, CLASSES, IDEAL = (
    "simple_propositions",
    "derived_propositions",
    "completion_classes",
    "ideal",
)
QUESTION = (
    "Answer this about each of the two replies: {question} Choose the reply of which the answer is {wanted}."
)


def read_propositions(path: Path, data: Any, node: Any) -> Imported:
    """Return a principle for each proposition that an ideal reply settles.

    Raises InputError naming the line of a proposition that holds no question.
    """
    match data:
        case {"simple_propositions": dict(simple), "completion_classes": {"ideal": dict(ideals)}} if simple:
            derived = data.get(DERIVED)
        case _:
            raise InputError(f"{path} must hold '{SIMPLE}' and '{CLASSES}' with '{IDEAL}'.")
    derived = derived if isinstance(derived, dict) else {}
    wanted: dict[tuple[Any, bool], list[str]] = {}
    for kind, ideal in ideals.items():
        for fact in _facts(ideal, derived):
            wanted.setdefault(fact, []).append(str(kind))
    entries = []
    for (name, truth), kinds in sorted(wanted.items(), key=str):
        if name in simple:
            scope = [] if len(kinds) == len(ideals) else kinds
            entries.append(_entry(path, node, str(name), simple[name], truth) | {"applies_to": scope})
    left = len(simple.keys() - {name for name, _ in wanted})
    return Imported(entries, f"Left out: {left} propositions that no ideal reply settles." if left else "")


def _facts(required: Any, derived: dict[Any, Any]) -> set[tuple[Any, bool]]:
    """Return what must be true or false for all of ``required`` to hold.

    A derived proposition that must not hold settles none of its parts.
    """
    facts: set[tuple[Any, bool]] = set()
    parts, seen = [required], set()
    for part in parts:  # which grows by each derived proposition once, so that a cycle ends
        for name, truth in part.items() if isinstance(part, dict) else ():
            if not isinstance(truth, bool):
                continue
            if name not in derived:
                facts.add((name, truth))
            elif truth and name not in seen:
                seen.add(name)
                parts.append(derived[name])
    return facts


def _entry(path: Path, node: Any, name: str, proposition: Any, wanted: bool) -> Entry:
    line = line_of(node, [SIMPLE, name])
    match proposition:
        case {"prompt": str(prompt)} if prompt.strip():
            first, *rest = prompt.strip().partition("\n\n")[0].splitlines()
            question = " ".join([first, *rest] if first.rstrip().endswith(":") else [first])
        case _:
            raise InputError(f"{path}:{line}: '{name}' must hold 'prompt', a question.")
    answer = "yes" if wanted else "no"
    question = " ".join(question.split())
    return {
        "name": f"{name}: {answer}",
        "preference": QUESTION.replace("{wanted}", answer).replace("{question}", question),
        "proposition": question,
        "wanted": wanted,
        "source": anchor(path, line, name),
    }
