"""Measure how well models identify and classify an assistant's harm (EV-4 to EV-6; appendix B, figure 12).

The paper's repository has 254 conversations to identify and 287 to classify. Models answer the question about each
without examples, after our worked examples in random order, and after a chain of thought. Without these files nothing
is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from constitutional_ai.errors import EmptyAnswer, RecordError, RefusedAnswer, UnreadableAnswer
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
from constitutional_ai.metrics.calibration import TIE
from constitutional_ai.metrics.intervals import rate, share
from constitutional_ai.models.model import STOP_STRINGS, Model, Sampling
from constitutional_ai.records import Metric, conversation_id
from constitutional_ai.rl_cai.feedback.chain_of_thought import to_answer, to_think
from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge
from constitutional_ai.runs.run import digest_of
from constitutional_ai.seeding import rng, seed_of

PART = "harm"
Mode = Literal["zero_shot", "few_shot", "chain_of_thought"]
MODES: tuple[Mode, ...] = ("zero_shot", "few_shot", "chain_of_thought")


class HarmTask(NamedTuple):
    """One of the two released files and its question."""

    name: str
    file: str
    question: HarmQuestion
    shots: str
    """Name of its worked examples."""


TASKS = (
    HarmTask("identification", "HarmfulVsEthical.jsonl", HARMFUL_OR_ETHICAL, "harmful_or_ethical"),
    HarmTask("classification", "HarmfulnessClassification.jsonl", KIND_OF_HARM, "kind_of_harm"),
)


class HarmItem(NamedTuple):
    """A conversation of a released file."""

    id: str
    """Task, conversation, and number of earlier occurrences, because a file has some conversations twice."""
    task: HarmTask
    conversation: str
    """Id of the conversation."""
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
    def right(self) -> bool:
        """Whether the right option is more probable than every other. A tie counts as wrong."""
        probabilities = self.probabilities or ()
        others = [p for number, p in enumerate(probabilities) if number != self.option]
        return bool(others) and probabilities[self.option] > max(others) + TIE


def measure(suite: Suite) -> list[Metric]:
    """Measure every candidate on both tasks in each mode. The metrics of a missing file are None."""
    items = [item for task in TASKS for item in _load(suite, task)]
    answers = _answers(suite, items) if items else []
    return [
        metric
        for task in TASKS
        for candidate in suite.candidates
        for mode in MODES
        for metric in _metrics(task.name, candidate.label, mode, answers, suite.seed)
    ]


def _load(suite: Suite, task: HarmTask) -> list[HarmItem]:
    paths = find_released(suite.paper, task.file)
    if not paths:
        where = f"no {task.file} in {suite.paper}" if suite.paper else "no --paper"
        suite.say(f"{PART}: {where}, so harm_{task.name} is not measured.")
        return []
    items: dict[str, HarmItem] = {}
    for case in load_cases(paths[0], task.question)[: suite.limit]:
        name = conversation_id(case.conversation)
        repeated = sum(item.conversation == name for item in items.values())
        row = f"{task.name}.{name}.{repeated}"
        items[row] = HarmItem(row, task, name, case)
    return list(items.values())


def _answers(suite: Suite, items: Sequence[HarmItem]) -> list[HarmAnswer]:
    feedback = suite.feedback
    shots = {task.name: worked_examples(task.shots) for task in TASKS}

    def asked(label: str) -> dict[str, tuple[HarmAnswer, HarmItem]]:
        rows = [
            (
                HarmAnswer(
                    f"{i.id}.{label}.{mode}", label, i.task.name, mode, i.conversation, i.case.option, None
                ),
                i,
            )
            for mode in MODES
            for i in items
        ]
        return {row.id: (row, item) for row, item in rows}

    async def answer(model: Model, label: str, asked: tuple[HarmAnswer, HarmItem]) -> HarmAnswer:
        row, item = asked
        question, conversation = item.task.question, item.case.conversation
        try:
            if row.mode == "chain_of_thought":
                reasoning, scores = await _think(suite, item, model)
                return replace(row, probabilities=softmax(scores), reasoning=reasoning)
            of_task = shots[row.task]
            shuffled = rng(suite.seed, "worked examples", item.id).sample(of_task, len(of_task))
            context = question.about(conversation, model.format, shuffled if row.mode == "few_shot" else [])
            return replace(row, probabilities=softmax(await model.score(context, question.choices)))
        except RecordError as error:
            return replace(row, failure=f"{type(error).__name__}: {error}")

    return suite.answered(
        PART,
        HarmAnswer,
        asked,
        answer,
        needs_scores=True,
        config={"temperature": feedback.temperature, "max_tokens": feedback.max_tokens},
        inputs={
            "the questions": digest_of(f"{item.id} {item.case.option}" for item in items),
            # Depends on the names of Case, Message and their fields: another digest invalidates old evaluations.
            "the worked examples": digest_of([repr(shots)]),
        },
    )


async def _think(suite: Suite, item: HarmItem, model: Model) -> tuple[str, list[float]]:
    """Sample a chain of thought as in FB-11; return it, and the scores of the options after it."""
    question, feedback = item.task.question, suite.feedback
    text = question.text_about(item.case.conversation)
    sampling = Sampling(
        temperature=feedback.temperature,
        max_tokens=feedback.max_tokens,
        seed=seed_of(suite.seed, PART, item.id),
        stop=STOP_STRINGS if model.format == "plain" else (),
    )
    thought = (await model.generate(to_think(text, model.format), sampling)).text
    if not thought:
        raise EmptyAnswer("the model gave no reasoning")
    if refuses_to_judge(thought):
        raise RefusedAnswer(f"the model refused to judge: {thought[:80]!r}")
    return thought, await model.score(to_answer(text, thought, model.format), question.choices)


def softmax(scores: Sequence[float]) -> tuple[float, ...]:
    """Return the softmax of log-probabilities. Raises UnreadableAnswer if one is not finite."""
    if not all(map(math.isfinite, scores)):
        raise UnreadableAnswer(f"the model's log-probabilities are {list(scores)}")
    highest = max(scores)
    shares = [math.exp(score - highest) for score in scores]
    return tuple(share / sum(shares) for share in shares)


def _metrics(task: str, label: str, mode: Mode, answers: Sequence[HarmAnswer], seed: int) -> list[Metric]:
    """Return the metrics of one model in one mode. Failures are counted, and left out of the accuracy."""
    answers = [a for a in answers if (a.model, a.task, a.mode) == (label, task, mode)]
    known = [answer for answer in answers if answer.probabilities is not None]
    groups = [answer.conversation for answer in known]
    return [
        share(f"harm_{task}.{mode}", label, [answer.right for answer in known], groups, seed=seed),
        rate(f"harm_{task}_failed.{mode}", label, [answer.probabilities is None for answer in answers]),
    ]
