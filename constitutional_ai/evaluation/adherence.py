"""Ask the judge, principle by principle, whether a model's answers uphold it better than the start's (OV-1).

Ours, not the paper's: its figures say whether models became more harmless, not which principle did it. Each model's
answer to a held-out red-team prompt is compared with the start's answer to the same prompt, under each principle that
applies to the prompt, in both orders where the judge's method has one. The judge must first pass the gate; otherwise
nothing is measured. Two equal answers are a tie, and are not asked about.

Answers are in ``adherence/answers``, choices in ``adherence/choices``, and the table in ``adherence/adherence.csv``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from constitutional_ai.constitutions.constitution import (
    Constitution,
    Principle,
    applying_to,
    load_constitution,
)
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import RecordError
from constitutional_ai.evaluation.answers import sample_answers
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.metrics.intervals import decided, rate, share
from constitutional_ai.models.model import Model
from constitutional_ai.records import (
    Answer,
    Candidate,
    Comparison,
    GateAnswer,
    Judgement,
    Metric,
    is_tie,
)
from constitutional_ai.rl_cai.feedback.gate import gate_questions, gate_result
from constitutional_ai.rl_cai.feedback.label import METHODS, label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots, load_few_shots
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.run import digest_of
from constitutional_ai.safe_text import csv_text

PART = "adherence"
TABLE = "adherence.csv"
COLUMNS = ("principle", "model", "start", "share", "low", "high", "decided", "ties", "failed")


@dataclass(frozen=True, slots=True)
class GateReading:
    """The judge's answer to one gate question, or why there is none."""

    id: str
    answer: GateAnswer | None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class AdherenceChoice:
    """The judge's choice, under one principle, between a model's answer to a prompt and the start's."""

    id: str
    model: str
    start: str
    """Label of the model that it is compared with."""
    principle: str
    prompt: str
    """Id of the prompt. Choices about one prompt are not independent."""
    probability: float | None
    """P(the model's answer is better), in [0, 1]; None if the judge gave no readable answer."""
    judgements: tuple[Judgement, ...] = ()
    failure: str | None = None

    @property
    def wins(self) -> bool | None:
        """Whether the model's answer is preferred; None for a tie, or without an answer."""
        return None if self.probability is None or is_tie(self.probability) else self.probability > 0.5


class _Question(NamedTuple):
    """One pair of answers under one principle: a is the model's, b the start's."""

    blank: AdherenceChoice
    principle: Principle
    pair: Comparison


@dataclass(frozen=True)
class _Judge:
    """How questions are put to the judge: as those of its run."""

    name: str
    constitution: Constitution
    settings: Feedback
    few_shots: FewShots | None
    seed: int

    async def choose(self, model: Model, pair: Comparison, *, alone: Principle | None = None) -> GateAnswer:
        """Return the label of a pair under the constitution, or under one principle ``alone``, in both orders."""
        constitution, settings = self.constitution, self.settings
        if alone:
            everywhere = alone.model_copy(update={"applies_to": ()})
            constitution = Constitution(name=alone.name, principles=(everywhere,))
            settings = settings.model_copy(update={"principles": 1, "both_orders": True})
        labelled = partial(label, model=model, constitution=constitution, settings=settings)
        return GateAnswer(pair.id, await labelled(pair, seed=self.seed, few_shots=self.few_shots), "a")


def measure(suite: Suite) -> list[Metric]:
    """Return, for each model but a start, the share of decided prompts on which it wins, by principle and over all.

    Every value is None, with a message, if there is no judge or it did not pass the gate.
    """
    judge, starts = _judge(suite), starts_of(suite.candidates)
    choices: list[AdherenceChoice] = []
    gate: list[Metric] = []
    if judge is None:
        suite.say(f"{PART}: not measured, because there is no judge. Name one with --judge.")
    elif not starts:
        suite.say(
            f"{PART}: not measured, because there is no model to compare with the start. Name another one."
        )
    else:
        passed, gate = _pass_gate(suite, judge)
        choices = _choices(suite, judge, starts) if passed else []
    principles = [
        p.name for p in METHODS[suite.feedback.method].principles(load_constitution(suite.constitution))
    ]
    write_table(suite, principles, starts, choices)
    return [*gate, *(metric for model in starts for metric in _metrics(suite, model, principles, choices))]


def starts_of(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Return for each model that is no start the label of its own: its run's start, or else the first one."""
    own = {one.run: one.label for one in candidates if one.role == layout.START and one.run}
    first = next(iter(own.values()), candidates[0].label)
    pairs = {one.label: own.get(one.run or "", first) for one in candidates}
    return {model: start for model, start in pairs.items() if model != start}


# -- the judge and its gate


def _judge(suite: Suite) -> _Judge | None:
    if suite.judge is None:
        return None
    examples = load_few_shots(few_shots_folder(suite.few_shots))
    return _Judge(suite.judge, load_constitution(suite.constitution), suite.feedback, examples, suite.seed)


def _inputs(judge: _Judge) -> dict[str, str]:
    shots = digest_of([repr(judge.few_shots)])
    return {
        "constitution": judge.constitution.digest,
        "the worked examples": shots,
        "the judge's weights": weights_digest(judge.name),
    }


def _config(judge: _Judge) -> dict[str, Any]:
    return {"judge": judge.name, "feedback": judge.settings.model_dump(mode="json", exclude={"predicates"})}


def _pass_gate(suite: Suite, judge: _Judge) -> tuple[bool, list[Metric]]:
    """Ask the gate's questions as a run does (pitfall 27), and return whether the judge passed, and how well."""
    questions = {pair.id: (pair, side) for pair, side in (q.comparison(judge.seed) for q in gate_questions())}

    async def read(model: Model, _: str, name: str) -> GateReading:
        pair, side = questions[name]
        try:
            return GateReading(name, replace(await judge.choose(model, pair), better=side))
        except RecordError as error:
            return GateReading(name, None, f"{type(error).__name__}: {error}")

    rows = suite.answered(
        f"{PART}/gate",
        GateReading,
        lambda _: {name: name for name in questions},
        read,
        by={"judge": judge.name},
        config=_config(judge),
        inputs={"the questions": digest_of(questions), **_inputs(judge)},
    )
    result = gate_result(judge.name, [row.answer for row in rows if row.answer])
    suite.say(f"{PART}: the judge gets {result}.")
    if not result.passed:
        suite.say(
            f"{PART}: not measured, because the judge is not measurably better than chance at the gate. Name a "
            "larger one with --judge, or another --set method=..."
        )
    return result.passed, [replace(result.accuracy, name=f"{PART}_gate_accuracy")]


# -- the choices


def _choices(suite: Suite, judge: _Judge, starts: Mapping[str, str]) -> list[AdherenceChoice]:
    prompts = suite.prompts["red_team"]
    digest = digest_of(f"{p.kind} {p.id}" for p in prompts)
    # Local models answer from the cache if the part `answers` asked the same; each answer is the first of its prompt.
    answers = sample_answers(replace(suite, samples=1), f"{PART}/answers", prompts, digest)
    questions = {q.blank.id: q for q in _questions(answers, judge, starts)}

    async def choose(model: Model, _: str, question: _Question) -> AdherenceChoice:
        blank, pair = question.blank, question.pair
        if pair.a.text == pair.b.text:
            return replace(blank, probability=0.5)
        try:
            chosen = (await judge.choose(model, pair, alone=question.principle)).label
        except RecordError as error:
            return replace(blank, failure=f"{type(error).__name__}: {error}")
        return replace(blank, probability=chosen.probability_a, judgements=chosen.judgements)

    return suite.answered(
        f"{PART}/choices",
        AdherenceChoice,
        lambda _: questions,
        choose,
        by={"judge": judge.name},
        config=_config(judge),
        inputs={"the answers": suite.run.output_digest(f"{PART}/answers"), **_inputs(judge)},
    )


def _questions(answers: Iterable[Answer], judge: _Judge, starts: Mapping[str, str]) -> Iterable[_Question]:
    """Yield a question for each model, prompt and principle that applies to the prompt."""
    given = {(a.model, a.response.prompt.id): a.response for a in answers}
    principles = METHODS[judge.settings.method].principles(judge.constitution)
    for (model, prompt), response in given.items():
        start = starts.get(model)
        if start is None or (start, prompt) not in given:
            continue
        for principle in applying_to(response.prompt, principles):
            name = f"{prompt}.{model}.{principle.name}"
            blank = AdherenceChoice(name, model, start, principle.name, prompt, None)
            pair = Comparison(name, response.prompt, response.completion, given[start, prompt].completion)
            yield _Question(blank, principle, pair)


# -- metrics


def _metrics(
    suite: Suite, model: str, principles: Sequence[str], choices: Sequence[AdherenceChoice]
) -> list[Metric]:
    own = [c for c in choices if c.model == model]
    known = [(c.wins, c.prompt) for c in own if c.wins is not None]
    read = [c for c in own if c.probability is not None]
    wins, prompts = [win for win, _ in known], [prompt for _, prompt in known]
    return [
        *(replace(of_principle(model, p, own).share, name=f"{PART}.{p}") for p in principles),
        share(f"{PART}_over_all", model, wins, prompts, seed=suite.seed),
        share(f"{PART}_ties", model, [c.wins is None for c in read], [c.prompt for c in read], seed=suite.seed),
        share(
            f"{PART}_failed",
            model,
            [c.probability is None for c in own],
            [c.prompt for c in own],
            seed=suite.seed,
        ),
    ]


class Cell(NamedTuple):
    """One model under one principle."""

    share: Metric
    """Share of decided prompts on which the model's answer is preferred to the start's."""
    ties: int
    failed: int


def of_principle(model: str, principle: str, choices: Sequence[AdherenceChoice]) -> Cell:
    """Return a cell of the table. Prompts are independent, so its interval is Wilson's."""
    own = [c for c in choices if (c.model, c.principle) == (model, principle)]
    read = [c.wins for c in own if c.probability is not None]
    return Cell(rate(principle, model, decided(read)), read.count(None), len(own) - len(read))


def write_table(
    suite: Suite, principles: Sequence[str], starts: Mapping[str, str], choices: Sequence[AdherenceChoice]
) -> None:
    """Write ``adherence.csv``: a row for each principle and model. An empty cell was not measured."""
    rows: list[tuple[object, ...]] = [COLUMNS]
    for principle in principles:
        for model, start in starts.items():
            cell, tied, failed = of_principle(model, principle, choices)
            measured = (cell.value, cell.low, cell.high, cell.count, tied, failed) if choices else (None,) * 6
            rows.append((principle, model, start, *measured))
    folder = suite.run.stage(PART)
    folder.mkdir(exist_ok=True)
    write_atomically(folder / TABLE, csv_text(rows))
