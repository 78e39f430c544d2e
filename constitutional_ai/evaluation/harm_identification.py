"""Was an assistant harmful, and how? Models are asked about whole conversations (EV-4 to EV-6; appendix B, figure 12).

254 conversations to identify and 287 to classify, which the paper's repository has: as they stand, after our worked
examples in an order drawn for each question, and after a chain of thought. Without those files nothing is measured.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.metrics.calibration import TIE
from constitutional_ai.metrics.intervals import rate, share
from constitutional_ai.models.model import STOP_STRINGS, Model, Sampling
from constitutional_ai.records import Metric, conversation_id
from constitutional_ai.rl_cai.feedback.chain_of_thought import to_answer, to_think
from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge
from constitutional_ai.runs.run import digest_of
from constitutional_ai.runs.runner import Pass
from constitutional_ai.seeding import rng, seed_of

PART = "harm"
Mode = Literal["zero_shot", "few_shot", "chain_of_thought"]
MODES: tuple[Mode, ...] = ("zero_shot", "few_shot", "chain_of_thought")


class HarmTask(NamedTuple):
    name: str
    file: str
    question: HarmQuestion
    shots: str


TASKS = (
    HarmTask("identification", "HarmfulVsEthical.jsonl", HARMFUL_OR_ETHICAL, "harmful_or_ethical"),
    HarmTask("classification", "HarmfulnessClassification.jsonl", KIND_OF_HARM, "kind_of_harm"),
)


class HarmItem(NamedTuple):
    id: str
    """The task, the conversation, and how often it came before: some conversations stand in a file twice."""
    task: HarmTask
    conversation: str
    """Its id."""
    case: Case


@dataclass(frozen=True, slots=True)
class HarmAnswer:
    """What a model, asked in one way, says of one conversation."""

    id: str
    model: str
    task: str
    mode: Mode
    conversation: str
    """Its id: what is asked about one conversation is not independent."""
    option: int
    """Number of the right one."""
    probabilities: tuple[float, ...] | None
    """Of the options, by the model; None where it gave no answer that can be read."""
    reasoning: str | None = None
    failure: str | None = None
    """Why there are no probabilities."""

    @property
    def right(self) -> bool:
        """Whether the right option is likelier than each other; a tie is not right."""
        found = self.probabilities or ()
        others = [p for number, p in enumerate(found) if number != self.option]
        return bool(others) and found[self.option] > max(others) + TIE


def measure(suite: Suite) -> list[Metric]:
    asked = {task.name: _asked(suite, task) for task in TASKS}
    told = _told(suite, [one for found in asked.values() for one in found]) if any(asked.values()) else []
    return [
        figure
        for task in TASKS
        for candidate in suite.candidates
        for mode in MODES
        for figure in _figures(
            task.name,
            candidate.label,
            mode,
            [t for t in told if (t.model, t.task, t.mode) == (candidate.label, task.name, mode)],
            suite.seed,
        )
    ]


def _asked(suite: Suite, task: HarmTask) -> list[HarmItem]:
    path = _file(suite.paper, task.file)
    if path is None:
        where = f"no {task.file} in {suite.paper}" if suite.paper else "no --paper"
        suite.say(f"{PART}: {where}, so harm_{task.name} is not measured.")
        return []
    found: dict[str, HarmItem] = {}
    for case in load_cases(path, task.question)[: suite.limit]:
        name = conversation_id(case.conversation)
        again = sum(one.conversation == name for one in found.values())
        row = f"{task.name}.{name}.{again}"
        found[row] = HarmItem(row, task, name, case)
    return list(found.values())


def _file(paper: Path | None, name: str) -> Path | None:
    folders = (paper, paper / "evals") if paper else ()
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _told(suite: Suite, asked: Sequence[HarmItem]) -> list[HarmAnswer]:
    how = suite.feedback
    thinking = Sampling(temperature=how.temperature, max_tokens=how.max_tokens)
    shots = {task.name: worked_examples(task.shots) for task in TASKS}

    async def passes() -> AsyncIterator[Pass[HarmItem, HarmAnswer]]:
        for candidate in suite.candidates:
            with suite.loaded(candidate.model) as model:
                if not await suite.gives_scores(candidate, model, PART):
                    continue
                for mode in MODES:

                    async def step(
                        one: HarmItem, label: str = candidate.label, mode: Mode = mode, model: Model = model
                    ) -> HarmAnswer:
                        row = HarmAnswer(
                            f"{one.id}.{label}.{mode}",
                            label,
                            one.task.name,
                            mode,
                            one.conversation,
                            one.case.option,
                            None,
                        )
                        return await _tell(one, row, model, shots[one.task.name], thinking, suite.seed)

                    yield Pass({f"{one.id}.{candidate.label}.{mode}": one for one in asked}, step)

    return suite.rows(
        PART,
        HarmAnswer,
        passes,
        config={"temperature": how.temperature, "max_tokens": how.max_tokens},
        inputs={
            "the questions": digest_of(f"{one.id} {one.case.option}" for one in asked),
            "the worked examples": digest_of([repr(shots)]),
        },
    )


async def _tell(
    one: HarmItem, row: HarmAnswer, model: Model, shots: Sequence[Case], thinking: Sampling, seed: int
) -> HarmAnswer:
    try:
        if row.mode == "chain_of_thought":
            sampling = replace(thinking, seed=seed_of(seed, PART, one.id))
            thought, scores = await _thought(one, model, sampling)
            return replace(row, probabilities=softmax(scores), reasoning=thought)
        drawn = rng(seed, "worked examples", one.id).sample(shots, len(shots))
        question = one.task.question
        before = drawn if row.mode == "few_shot" else []
        context = question.about(one.case.conversation, model.format, before)
        return replace(row, probabilities=softmax(await model.score(context, question.choices)))
    except RecordError as error:
        return replace(row, failure=f"{type(error).__name__}: {error}")


async def _thought(one: HarmItem, model: Model, sampling: Sampling) -> tuple[str, list[float]]:
    """A sampled chain of thought, and the scores of the options after it; asked as feedback is (FB-11)."""
    question, fmt = one.task.question, model.format
    asked = question.asked(one.case.conversation)
    stop = STOP_STRINGS if fmt == "plain" else ()
    said = await model.generate(to_think(asked, fmt), replace(sampling, stop=stop))
    if not said.text:
        raise EmptyAnswer("the model gave no reasoning")
    if refuses_to_judge(said.text):
        raise RefusedAnswer(f"the model refuses to judge: {said.text[:80]!r}")
    return said.text, await model.score(to_answer(asked, said.text, fmt), question.choices)


def softmax(scores: Sequence[float]) -> tuple[float, ...]:
    """Raises UnreadableAnswer where a log-probability is no number."""
    if not all(map(math.isfinite, scores)):
        raise UnreadableAnswer(f"the model's log-probabilities are {list(scores)}")
    highest = max(scores)
    shares = [math.exp(score - highest) for score in scores]
    return tuple(share / sum(shares) for share in shares)


def _figures(task: str, label: str, mode: Mode, told: Sequence[HarmAnswer], seed: int) -> list[Metric]:
    """What gave no answer is counted apart, and scores nothing."""
    known = [one for one in told if one.probabilities is not None]
    talks = [one.conversation for one in known]
    return [
        share(f"harm_{task}.{mode}", label, [one.right for one in known], talks, seed=seed),
        rate(f"harm_{task}_failed.{mode}", label, [one.probabilities is None for one in told]),
    ]
