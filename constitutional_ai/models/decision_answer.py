"""Write a decision question, and read its answer, in the shapes of both protocols: ``systemone`` and ``decisions``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from constitutional_ai.errors import BrokenReply, RefusedAnswer
from constitutional_ai.models.abilities import DecisionQuestion, Reading

NAME = "answer"
"""Name of the question in a request, which holds one."""
SUM_TOLERANCE = 0.02
"""How far from 1 the sum of an answer's probabilities may be: servers round them."""
KINDS = {"choice": ("choice",), "score": ("score",), "predicate": ("noul", "predicate")}
"""The types of an answer to each kind of question: ``systemone`` calls a predicate ``noul``."""
LONGEST_RAW = 2000
"""Characters to which an answer is cut in a record."""


def letter(number: int) -> str:
    """Return the name of an option: A for the first."""
    return chr(ord("A") + number)


def systemone_question(question: DecisionQuestion) -> dict[str, Any]:
    """Return a question in the shape of ``systemone``. Its options are shown in the order of its ``criteria``."""
    if question.kind == "predicate":
        return {"type": "noul", "instructions": question.text}
    criteria: Any = list(question.options)
    if question.kind == "choice":
        criteria = {letter(number): option for number, option in enumerate(question.options)}
    return {"type": question.kind, "instructions": question.text, "criteria": criteria}


def decisions_question(question: DecisionQuestion) -> dict[str, Any]:
    """Return a question in the shape of ``decisions``."""
    same = {"type": question.kind, "name": NAME, "instructions": question.text}
    if question.kind == "predicate":
        return same
    if question.kind == "score":
        return {**same, "levels": [{"label": option} for option in question.options]}
    choices = [{"value": letter(number), "description": text} for number, text in enumerate(question.options)]
    return {**same, "choices": choices}


def read_decision(reply: Any, question: DecisionQuestion) -> Reading:
    """Return the answer in a reply of either endpoint. Raises RefusedAnswer or BrokenReply: it may hold anything."""
    reply = reply if isinstance(reply, dict) else {}
    answer = _only(reply.get("answers"))
    raw = json.dumps(answer)[:LONGEST_RAW]
    if answer.get("type") == "refusal":
        raise RefusedAnswer(f"the feedback model refused to judge: {raw}")
    is_predicate = question.kind == "predicate"
    probabilities = _yes_and_no(answer) if is_predicate else _in_order(answer.get("probabilities"), question)
    total = sum(probabilities)
    if answer.get("type") not in KINDS[question.kind] or abs(total - 1) > SUM_TOLERANCE:
        raise BrokenReply(f"the server's answer is no {question.kind} with probabilities: {raw[:200]}")
    usage = _mapping(reply.get("usage"))
    return Reading(
        tuple(p / total for p in probabilities),
        _label_mass(reply, answer),
        raw,
        _count(usage.get("input_tokens")),
        _count(usage.get("output_tokens")),
    )


def _only(answers: Any) -> Mapping[str, Any]:
    """Return the one answer: ``systemone`` has them by name, ``decisions`` in a list."""
    listed = list(answers.values()) if isinstance(answers, dict) else answers
    if not (isinstance(listed, list) and len(listed) == 1 and isinstance(listed[0], dict)):
        raise BrokenReply("the server's reply holds no answer to the question")
    return listed[0]


def _in_order(probabilities: Any, question: DecisionQuestion) -> list[float]:
    """Return the probability of each option, by its name; a level has a number or its own text for one."""
    if isinstance(probabilities, list):
        name = "value" if question.kind == "choice" else "label"
        entries = [_mapping(entry) for entry in probabilities]
        probabilities = {str(entry.get(name)): entry.get("probability") for entry in entries}
    by_name, values = _mapping(probabilities), []
    for number, option in enumerate(question.options):
        names = [letter(number)] if question.kind == "choice" else [option, str(number)]
        values.append(next((by_name[name] for name in names if name in by_name), None))
    if len(by_name) != len(values) or not all(map(_is_probability, values)):
        raise BrokenReply(f"the server's answer has no probability for each option: {str(dict(by_name))[:200]}")
    return [float(value) for value in values if value is not None]


def _yes_and_no(answer: Mapping[str, Any]) -> list[float]:
    """Return the probabilities of yes and of no; a reply holds the first only."""
    yes: Any = answer.get("noul" if answer.get("type") == "noul" else "probability")
    if not _is_probability(yes):
        raise BrokenReply(f"the server's answer has no probability of yes: {str(dict(answer))[:200]}")
    yes = min(max(float(yes), 0.0), 1.0)  # servers round
    return [yes, 1 - yes]


def _label_mass(reply: Mapping[str, Any], answer: Mapping[str, Any]) -> float | None:
    """Return the probability of all labels, which vLLM puts among ``diagnostics``; None if the server tells none."""
    diagnostics = _mapping(_mapping(reply.get("diagnostics")).get(NAME))
    mass = answer.get("label_mass", diagnostics.get("label_mass"))
    if mass is None:
        return None
    if not _is_probability(mass):
        raise BrokenReply(f"the server's label_mass is {str(mass)[:40]}")
    return min(1.0, float(mass))


def _is_probability(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -1e-6 <= value <= 1 + 1e-3  # not math.isfinite: JSON may hold a number of any length


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
