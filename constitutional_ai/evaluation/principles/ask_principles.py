"""Ask a judge about each pair of answers under each principle, and under its negation (``cai constitution test``).

Questions are those of the pipeline (``rl_cai/feedback``), in both orders where the method has one, behind the worked
examples that a run would draw for the pair. The negation is the principle's own question and a request for the reply
that it would not choose. The method likelihood has none: there, swapping the two assistants reverses every answer by
arithmetic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import RecordError
from constitutional_ai.evaluation.principles.contrasts import Contrast, ContrastPair
from constitutional_ai.models.model import Model
from constitutional_ai.records import PreferenceLabel, is_tie
from constitutional_ai.rl_cai.feedback.label import METHODS, label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots
from constitutional_ai.runs.meter import metered

AT_ONCE = 64
"""Maximum number of pairs that are judged at the same time."""
NEGATION = "{question} Now do the opposite: choose the reply that this would not choose."


@dataclass(frozen=True, slots=True)
class PairAnswer:
    """The judge's answer to one pair under one principle."""

    contrast: Contrast
    probability: float | None
    """P(the marked answer is better), in [0, 1]; None if the judge gave no readable answer."""
    flipped: bool | None
    """Whether the winner changes with the order; None without an order, or for a tie in one."""
    negated: float | None = None
    """The same probability under the negation; None if it was not asked, or not read."""

    @property
    def picks_marked(self) -> bool | None:
        """Whether the marked answer wins; None for a tie or without an answer."""
        return None if self.probability is None or is_tie(self.probability) else self.probability > 0.5


Answers = dict[str, list[PairAnswer]]
"""The answers under each principle, by its name; those of one pair stand at the same place."""


async def ask(
    constitution: Constitution,
    pairs: Sequence[ContrastPair],
    *,
    model: Model,
    settings: Feedback,
    seed: int,
    few_shots: FewShots | None = None,
    on_answer: Callable[[], None] = lambda: None,
) -> Answers:
    """Return the judge's answers under every principle that the method can use.

    ``on_answer`` is called after each. A RecordError leaves an answer out; any other error is raised. Questions that
    begin alike are sent one after another: those about a pair, or with the method likelihood those under a principle.
    """
    method, free = METHODS[settings.method], asyncio.Semaphore(AT_ONCE)

    async def one(principle: Principle, pair: ContrastPair) -> PairAnswer:
        comparison, marked = pair.comparison(seed)
        async with free:
            with metered() as meter:
                try:
                    given: PreferenceLabel | None = await label(
                        comparison,
                        model=model,
                        constitution=constitution,
                        settings=settings,
                        seed=seed,
                        few_shots=few_shots,
                        drawn=(principle,),
                    )
                except RecordError:
                    meter.forget()  # what was drawn cannot be read: another test draws anew
                    given = None
        on_answer()
        if given is None:
            return PairAnswer(pair.contrast, None, None)
        share = given.probability_a if marked == "a" else 1.0 - given.probability_a
        return PairAnswer(pair.contrast, share, given.flipped)

    async def both(principle: Principle, pair: ContrastPair) -> PairAnswer:
        if method.needs_assistants:
            return await one(principle, pair)
        answer, negated = await asyncio.gather(one(principle, pair), one(negation(principle), pair))
        return PairAnswer(answer.contrast, answer.probability, answer.flipped, negated.probability)

    principles = method.principles(constitution)
    places = list(product(range(len(principles)), range(len(pairs))))
    if not method.needs_assistants:
        places.sort(key=lambda place: place[1])
    answers = await asyncio.gather(*[both(principles[which], pairs[number]) for which, number in places])
    rows: Answers = {p.name: [] for p in principles}
    for (which, _), answer in zip(places, answers, strict=True):
        rows[principles[which].name].append(answer)
    return rows


def negation(principle: Principle) -> Principle:
    """Return the principle with a question that asks for the opposite."""
    question = NEGATION.replace("{question}", principle.preference or "")
    return principle.model_copy(update={"preference": question})


def questions_per_pair(constitution: Constitution, settings: Feedback) -> int:
    """Return how many answers a pair takes: one for each principle, and one for each negation."""
    method = METHODS[settings.method]
    return len(method.principles(constitution)) * (1 if method.needs_assistants else 2)
