"""Measure how well models identify and classify an assistant's harm (EV-4 to EV-6; appendix B, figure 12).

The paper's repository has 254 conversations to identify and 287 to classify. Models answer the question about each
without examples, after our worked examples in random order, and after a chain of thought. Without these files nothing
is measured.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from constitutional_ai.errors import RecordError, UnreadableAnswer
from constitutional_ai.evaluation.harm_questions import (
    HARMFUL_OR_ETHICAL,
    KIND_OF_HARM,
    Case,
    HarmQuestion,
    load_cases,
    worked_examples,
)
from constitutional_ai.evaluation.released_files import find_released
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.metrics.intervals import rate, share, ties
from constitutional_ai.models.model import Model
from constitutional_ai.records import TIE, Metric, conversation_id
from constitutional_ai.rl_cai.feedback.chain_of_thought import think, to_answer
from constitutional_ai.runs.run import digest_of
from constitutional_ai.seeding import rng, seed_of

PART = "harm"
Mode = Literal["zero_shot", "few_shot", "chain_of_thought"]
MODES: tuple[Mode, ...] = ("zero_shot", "few_shot", "chain_of_thought")
QUESTIONS = (HARMFUL_OR_ETHICAL, KIND_OF_HARM)


class HarmItem(NamedTuple):
    """A conversation of a released file, and the question about it."""

    id: str
    """Question, conversation, and number of earlier occurrences, because a file has some conversations twice."""
    question: HarmQuestion
    case: Case


@dataclass(frozen=True, slots=True)
class HarmAnswer:
    """A model's answer about one conversation, in one mode."""

    id: str
    model: str
    task: str
    mode: Mode
    conversation: str
    """Id of the conversation; answers about one conversation are not independent."""
    option: int
    """Index of the right option."""
    probabilities: tuple[float, ...] | None
    """The model's probability of each option; None if it gave no readable answer."""
    reasoning: str | None = None
    failure: str | None = None
    """Why there are no probabilities."""

    @property
    def right(self) -> bool | None:
        """Whether the right option is the most probable; None if another is as probable, or there is no answer."""
        probabilities = self.probabilities or ()
        others = [p for number, p in enumerate(probabilities) if number != self.option]
        lead = probabilities[self.option] - max(others) if others else 0.0
        return None if abs(lead) < TIE else lead > 0


def measure(suite: Suite) -> list[Metric]:
    """Measure every candidate on both tasks in each mode. The metrics of a missing file are None."""
    items = [item for question in QUESTIONS for item in _load(suite, question)]
    answers = _answers(suite, items) if items else []
    return [
        metric
        for question in QUESTIONS
        for candidate in suite.candidates
        for mode in MODES
        for metric in _metrics(question.name, candidate.label, mode, answers, suite.seed)
    ]


def _load(suite: Suite, question: HarmQuestion) -> Iterator[HarmItem]:
    paths = find_released(suite.paper, question.file)
    if not paths:
        where = f"no {question.file} in {suite.paper}" if suite.paper else "no --paper"
        suite.say(f"{PART}: {where}, so harm_{question.name} is not measured.")
        return
    seen: Counter[str] = Counter()
    for case in load_cases(paths[0], question)[: suite.limit]:
        name = f"{question.name}.{conversation_id(case.conversation)}"
        yield HarmItem(f"{name}.{seen[name]}", question, case)
        seen[name] += 1


def _answers(suite: Suite, items: Sequence[HarmItem]) -> list[HarmAnswer]:
    feedback = suite.feedback
    shots = {question.name: worked_examples(question.shots) for question in QUESTIONS}

    async def answer(model: Model, label: str, item: tuple[Mode, HarmItem]) -> HarmAnswer:
        mode, (name, question, case) = item
        conversation = conversation_id(case.conversation)
        row = HarmAnswer(f"{name}.{label}.{mode}", label, question.name, mode, conversation, case.option, None)
        try:
            if mode == "chain_of_thought":
                text = question.text_about(case.conversation)
                sampling = feedback.sampling(seed_of(suite.seed, PART, name))
                thought = (await think(model, text, model.format, sampling)).text
                scores = await model.score(to_answer(text, thought, model.format), question.choices)
                return replace(row, probabilities=softmax(scores), reasoning=thought)
            of_task = shots[question.name]
            shuffled = rng(suite.seed, "worked examples", name).sample(of_task, len(of_task))
            before = shuffled if mode == "few_shot" else []
            context = question.about(case.conversation, model.format, before)
            return replace(row, probabilities=softmax(await model.score(context, question.choices)))
        except RecordError as error:
            return replace(row, failure=f"{type(error).__name__}: {error}")

    return suite.answered(
        PART,
        HarmAnswer,
        lambda label: {f"{item.id}.{label}.{mode}": (mode, item) for mode in MODES for item in items},
        answer,
        needs_scores=True,
        config={"temperature": feedback.temperature, "max_tokens": feedback.max_tokens},
        inputs={
            "the questions": digest_of(f"{item.id} {item.case.option}" for item in items),
            # Depends on the names of Case, Message and their fields: another digest invalidates old evaluations.
            "the worked examples": digest_of([repr(shots)]),
        },
    )


def softmax(scores: Sequence[float]) -> tuple[float, ...]:
    """Return the softmax of log-probabilities. Raises UnreadableAnswer if one is not finite."""
    if not all(map(math.isfinite, scores)):
        raise UnreadableAnswer(f"the model's log-probabilities are {list(scores)}")
    highest = max(scores)
    shares = [math.exp(score - highest) for score in scores]
    return tuple(share / sum(shares) for share in shares)


def _metrics(task: str, label: str, mode: Mode, answers: Sequence[HarmAnswer], seed: int) -> list[Metric]:
    """Return the metrics of one model in one mode. Ties and failures are counted, and left out of the accuracy."""
    answers = [a for a in answers if (a.model, a.task, a.mode) == (label, task, mode)]
    known = [answer for answer in answers if answer.probabilities is not None]
    decided = [(answer.right, answer.conversation) for answer in known if answer.right is not None]
    return [
        share(f"harm_{task}.{mode}", label, [r for r, _ in decided], [c for _, c in decided], seed=seed),
        ties(f"harm_{task}_ties.{mode}", label, [answer.right for answer in known]),
        rate(f"harm_{task}_failed.{mode}", label, [answer.probabilities is None for answer in answers]),
    ]
