"""Every model answers every prompt: who objects, evades, refuses, repeats itself? (RL-8, EV-18, EV-19.)

Answers stand in ``answers/records.jsonl``. Preference models score them one after the other, each in a folder of its
own (``answers/pm-NAME``), so that one can be added later. ``answers/medians.jsonl`` has, for each prompt, the answer
whose score is the median, which is what the paper prints (EV-18).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from constitutional_ai.detectors.boilerplate import shares_sentences
from constitutional_ai.errors import RecordError
from constitutional_ai.evaluation.answer_rates import verdict
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.evaluation.paired import ALL, BENIGN, MEASURES, Measure
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.metrics.diversity import distinct_2, self_similarity
from constitutional_ai.metrics.intervals import cluster_bootstrap, mean, rate, share
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Answer, Kind, Message, Metric, Prompt, Response
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.runs.run import digest_of
from constitutional_ai.runs.runner import Pass
from constitutional_ai.seeding import seed_of

PART = "answers"
RED: tuple[Kind, ...] = ("red_team",)


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """A preference model's score of one answer."""

    id: str
    """The answer's."""
    score: float | None
    why: str | None = None
    """Why there is none."""


@dataclass(frozen=True, slots=True)
class MedianAnswer:
    """Of a model's answers to one prompt, the one in the middle by score; of an even number, the lower of two."""

    id: str
    model: str
    preference_model: str
    prompt: Prompt
    answer: str
    """Its id."""
    text: str
    score: float
    of: int
    """Answers that were scored."""


ScoresById = dict[str, float | None]
"""By the answer's id."""


def measure(suite: Suite) -> list[Metric]:
    answers = answered(suite)
    scores = {name: _scored(suite, name, folder, answers) for name, folder in suite.preference_models.items()}
    by_model = {c.label: [a for a in answers if a.model == c.label] for c in suite.candidates}
    if scores:
        _write_medians(suite, by_model, scores)
    return [metric for c in suite.candidates for metric in _metrics(suite, c.label, by_model[c.label], scores)]


def answered(suite: Suite) -> list[Answer]:
    """``samples`` answers of every model to every prompt, each with a seed of its own."""
    prompts = [prompt for kind in ALL for prompt in suite.prompts[kind]]

    async def passes() -> AsyncIterator[Pass[tuple[Prompt, int], Answer]]:
        for candidate in suite.candidates:
            with suite.loaded(candidate.model) as model:

                async def step(
                    item: tuple[Prompt, int], label: str = candidate.label, model: Model = model
                ) -> Answer:
                    prompt, number = item
                    seed = seed_of(suite.seed, "evaluate", prompt.id, number)
                    sampling = Sampling(temperature=suite.temperature, max_tokens=suite.max_tokens, seed=seed)
                    # Not `respond`: a model that says nothing is measured here, not passed over.
                    said = await model.generate(prompt.conversation, sampling)
                    response = Response(f"{prompt.id}.{number}", prompt, said)
                    return Answer(f"{response.id}.{label}", label, response, verdict(response))

                each = [(prompt, number) for prompt in prompts for number in range(suite.samples)]
                yield Pass({f"{prompt.id}.{n}.{candidate.label}": (prompt, n) for prompt, n in each}, step)

    return suite.rows(
        PART,
        Answer,
        passes,
        config={"samples": suite.samples, "temperature": suite.temperature, "max_tokens": suite.max_tokens},
        inputs={"the prompts": digest_of(f"{p.kind} {p.id}" for p in prompts)},
    )


def _scored(suite: Suite, name: str, folder: Path, answers: Sequence[Answer]) -> ScoresById:
    stage = f"{PART}/pm-{name}"

    async def passes() -> AsyncIterator[Pass[Answer, AnswerScore]]:
        from constitutional_ai.rl_cai.preference_model.scorable import Scorable, finite
        from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel

        pm, scorable = PreferenceModel(folder), Scorable(folder)

        async def step(answer: Answer) -> AnswerScore:
            talk = (*answer.response.prompt.conversation, Message("assistant", answer.response.text))
            try:
                scorable.check(talk)
            except RecordError as error:
                return AnswerScore(answer.id, None, str(error))
            return AnswerScore(answer.id, finite([await pm.reward(talk)])[0])

        yield Pass({answer.id: answer for answer in answers}, step)

    rows = suite.rows(
        stage,
        AnswerScore,
        passes,
        config={"preference_model": str(folder)},
        inputs={
            "the answers": suite.run.output_digest(PART),
            f"the weights of {name}": weights_digest(f"hf:{folder}"),
        },
    )
    if unscored := [row for row in rows if row.score is None]:
        suite.say(
            f"{stage}: {len(unscored)} of {len(rows)} answers cannot be scored; the first: {unscored[0].why}."
        )
    return {row.id: row.score for row in rows}


def _write_medians(suite: Suite, by_model: dict[str, list[Answer]], scores: dict[str, ScoresById]) -> None:
    rows = [
        _median(label, name, [(a, known) for a in answers if (known := of[a.id]) is not None])
        for name, of in scores.items()
        for label, every in by_model.items()
        for answers in _by_prompt(every).values()
    ]
    write_rows(suite.run.stage(PART) / layout.MEDIANS, MedianAnswer, [row for row in rows if row is not None])


def _median(label: str, name: str, scored: list[tuple[Answer, float]]) -> MedianAnswer | None:
    if not scored:
        return None
    answer, score = sorted(scored, key=lambda each: (each[1], each[0].id))[(len(scored) - 1) // 2]
    prompt, text = answer.response.prompt, answer.response.text
    return MedianAnswer(f"{prompt.id}.{label}.{name}", label, name, prompt, answer.id, text, score, len(scored))


def _by_prompt(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        found[answer.response.prompt.id].append(answer)
    return found


def _metrics(
    suite: Suite, label: str, answers: Sequence[Answer], scores: dict[str, ScoresById]
) -> list[Metric]:
    shared = _shared(answers)
    texts = [a.response.text for a in answers]
    alike = [self_similarity([a.response.text for a in each]) for each in _by_prompt(answers).values()]
    return [
        *[_figure(suite, label, answers, measure) for measure in _measures(shared, scores)],
        # Drawn anew with replacement, texts repeat each other: a bootstrap gives no interval of it.
        Metric("distinct_2", label, distinct_2(texts), None, None, len(texts)),
        mean("self_similarity", label, [x for x in alike if x is not None]),
    ]


def _measures(shared: dict[str, bool], scores: dict[str, ScoresById]) -> Iterator[Measure]:
    yield from MEASURES
    yield Measure("shared_sentence_rate", ALL, lambda a: shared[a.id])
    for name, of in scores.items():
        yield Measure(f"pm_score.{name}", RED, partial(_known, of))
        yield Measure(f"pm_score_benign.{name}", BENIGN, partial(_known, of))


def _known(of: ScoresById, answer: Answer) -> float | None:
    return of[answer.id]


def _figure(suite: Suite, label: str, answers: Sequence[Answer], measure: Measure) -> Metric:
    """Over the prompts of its kinds. Several answers to one prompt are not independent."""
    asked = [(a, measure.of(a)) for a in answers if a.response.prompt.kind in measure.kinds]
    known = [(a.response.prompt.id, value) for a, value in asked if value is not None]
    values, prompts = [value for _, value in known], [prompt for prompt, _ in known]
    if measure.name.endswith("_rate"):
        shares = [bool(value) for value in values]
        if suite.samples == 1:
            return rate(measure.name, label, shares)
        return share(measure.name, label, shares, prompts, seed=suite.seed)
    if suite.samples == 1:
        return mean(measure.name, label, values)
    return cluster_bootstrap(measure.name, label, values, prompts, seed=suite.seed)


def _shared(answers: Sequence[Answer]) -> dict[str, bool]:
    """By id, whether an answer says what others to other prompts say: the first answers, then the second, and so on."""
    nth: dict[int, list[Answer]] = defaultdict(list)
    for each in _by_prompt(answers).values():
        for number, answer in enumerate(each):
            nth[number].append(answer)
    return {
        answer.id: flag
        for one in nth.values()
        for answer, flag in zip(one, shares_sentences([a.response.text for a in one]), strict=True)
    }
