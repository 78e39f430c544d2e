"""Ask a judge each proposition about each answer of the fixed pairs (``cai constitution test``).

The question is that of the reward ``propositions``. It is about one answer, so there is no order and no other answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.errors import RecordError
from constitutional_ai.evaluation.principles.contrasts import Contrast, ContrastPair
from constitutional_ai.models.model import Model
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback.decision import Decision
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.yes_or_no import probability_of_yes

AT_ONCE = 128
"""Maximum number of questions that are asked at the same time."""


@dataclass(frozen=True, slots=True)
class PropositionAnswer:
    """P(yes), in [0, 1], of one proposition about both answers of a pair; None where the judge gave none."""

    contrast: Contrast
    marked: float | None
    other: float | None


@dataclass(frozen=True, slots=True)
class AskedProposition:
    """A proposition with what the judge answered about each pair."""

    name: str
    wanted: bool
    answers: list[PropositionAnswer]


def can_ask(settings: Feedback) -> bool:
    """Return whether the method reads probabilities of one answer: all do but votes."""
    method = METHODS[settings.method]
    return method.needs_scores or method.name == Decision.name


async def ask_propositions(
    constitution: Constitution,
    pairs: Sequence[ContrastPair],
    *,
    model: Model,
    settings: Feedback,
    on_answer: Callable[[], None] = lambda: None,
) -> list[AskedProposition]:
    """Return P(yes) of every proposition about every answer. Scopes are not regarded.

    ``on_answer`` is called after each. A RecordError leaves an answer out; any other error is raised. The questions
    about one answer follow one another, because they begin alike.
    """
    propositions, free = constitution.propositions, asyncio.Semaphore(AT_ONCE)

    async def one(pair: ContrastPair, answer: str, question: str) -> float | None:
        talk = (*pair.conversation, Message("assistant", answer))
        async with free:
            try:
                yes: float | None = await probability_of_yes(talk, question, model, settings)
            except RecordError:
                yes = None
        on_answer()
        return yes

    texts = [(pair, text) for pair in pairs for text in (pair.marked, pair.other)]
    coroutines = [one(*text, p.proposition or "") for text in texts for p in propositions]
    given = iter(await asyncio.gather(*coroutines))
    rows = [[next(given) for _ in propositions] for _ in texts]  # a row for each answer
    marked, other = rows[::2], rows[1::2]
    return [
        AskedProposition(
            p.name,
            p.wanted,
            [
                PropositionAnswer(pair.contrast, of_marked[at], of_other[at])
                for pair, of_marked, of_other in zip(pairs, marked, other, strict=True)
            ],
        )
        for at, p in enumerate(propositions)
    ]
