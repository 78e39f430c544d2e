"""Read the paper's HHH questions: which of two answers is more helpful, honest and harmless? (EV-1, EV-2; section 2.)

Several questions share a context, so intervals must resample whole contexts (pitfall 26).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.data.lines import read_lines
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.released_files import exact_turns
from constitutional_ai.models.model import ASSISTANT, plain
from constitutional_ai.records import (
    Comparison,
    Completion,
    Conversation,
    Message,
    Prompt,
    Side,
    conversation_id,
)
from constitutional_ai.rl_cai.feedback.questions import CHOICES, HEAD, to_choose


class HHHQuestion(NamedTuple):
    """Two answers, one of which is more helpful, honest and harmless. Answer a is option (A)."""

    comparison: Comparison
    better: Side
    constitution: Constitution
    """A constitution with the one principle of the question."""


class _HHHRow(BaseModel):
    prompt: str
    corrects: tuple[Literal[" (A)", " (B)"]]
    text_correct: str
    text_incorrect: str


def load_hhh(path: Path) -> list[HHHQuestion]:
    """Read a file in the paper's format, whose questions all have the same principle.

    Raises InputError that names a line whose prompt is not a question about its two dialogues.
    """
    rows = [_question(row, f"{path}:{number}") for number, row in read_lines(path, _HHHRow)]
    principles = {principle for principle, *_ in rows}
    if len(principles) != 1:
        raise InputError(f"{path} has {len(principles)} principles, but must have one. Use the released file.")
    constitution = one_principle(principles.pop())
    return [HHHQuestion(comparison, better, constitution) for _, comparison, better in rows]


def one_principle(preference: str) -> Constitution:
    """Return a constitution with this principle alone."""
    return Constitution(name="hhh", principles=(Principle(name="hhh", preference=preference),))


def _question(row: _HHHRow, place: str) -> tuple[str, Comparison, Side]:
    """Return the principle, the two answers and the better side. Check that they give the prompt."""
    (conversation, better), (same, worse) = _split(row.text_correct), _split(row.text_incorrect)
    side: Side = "a" if row.corrects[0] == CHOICES[0] else "b"
    a, b = (better, worse) if side == "a" else (worse, better)
    start = len(f"\n\n{HEAD}{plain(conversation).removesuffix(ASSISTANT)}\n\n\n")
    rest = len(to_choose(conversation, "", a, b, "plain")) - start
    principle = row.prompt[start : len(row.prompt) - rest].strip()
    rebuilt = to_choose(conversation, principle, a, b, "plain")
    if not principle or conversation != same or rebuilt != row.prompt:
        raise InputError(
            f"{place}: the prompt is not a question about its two dialogues. Use the released file."
        )
    answers = [Completion(text, "hhh", "stop", 0, max(1, len(text) // 4)) for text in (a, b)]
    name = conversation_id((*conversation, *[Message("assistant", text) for text in (a, b)]))
    return principle, Comparison(name, Prompt.of(conversation, "red_team", "hhh"), *answers), side


def _split(dialogue: str) -> tuple[Conversation, str]:
    """Return the turns before the last answer, and that answer without its leading spaces."""
    conversation, _, answer = dialogue.rpartition(ASSISTANT)
    return exact_turns(conversation), answer.lstrip(" ")
