"""Measure the candidates' answers to every prompt: objections, evasion, refusals, repetition (RL-8, EV-18, EV-19).

Answers are in ``answers/records.jsonl``. The scores of each preference model are in a folder of their own
(``answers/pm-NAME``), so that one can be added later. ``answers/medians.jsonl`` has the answer with the median score to
each prompt, which the paper prints (EV-18).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress, zip_longest

from constitutional_ai.detectors.boilerplate import shares_sentences
from constitutional_ai.errors import RecordError
from constitutional_ai.evaluation.answer_predicates import predicate_measures
from constitutional_ai.evaluation.answer_rates import (
    ALL_KINDS,
    BENIGN,
    MEASURES,
    RED,
    Measure,
    conversation_with,
    verdict,
)
from constitutional_ai.evaluation.suite import Score, Suite
from constitutional_ai.metrics.diversity import distinct_2, self_similarity
from constitutional_ai.metrics.intervals import SHARE, UNBOUNDED, cluster_bootstrap, mean, share
from constitutional_ai.models.model import Model
from constitutional_ai.records import Answer, Metric, Prompt, Response
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.runs.run import digest_of
from constitutional_ai.seeding import seed_of

PART = "answers"


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """A preference model's score of one answer."""

    id: str
    """Id of the answer."""
    score: float | None
    why: str | None = None
    """Why there is no score."""


@dataclass(frozen=True, slots=True)
class MedianAnswer:
    """The answer with the median score, or the lower of two medians, among a model's answers to one prompt."""

    id: str
    model: str
    preference_model: str
    prompt: Prompt
    answer: str
    """Id of the answer."""
    text: str
    score: float
    of: int
    """Number of answers that were scored."""


ScoresById = dict[str, float | None]
"""Scores by the id of the answer."""


def measure(suite: Suite) -> list[Metric]:
    """Measure every candidate's answers, and write the median answers if a preference model scores them."""
    prompts = [prompt for kind in ALL_KINDS for prompt in suite.prompts[kind]]
    answers = sample_answers(suite, PART, prompts, digest_of(f"{p.kind} {p.id}" for p in prompts))
    # The detectors may have changed since an answer was recorded.
    answers = [replace(answer, verdict=verdict(answer.response)) for answer in answers]
    scores = {name: _score(suite, name, answers) for name in suite.preference_models}
    judged = predicate_measures(suite, PART, answers)
    by_model = {c.label: [a for a in answers if a.model == c.label] for c in suite.candidates}
    if scores:
        medians = _medians(by_model, scores)
        write_rows(suite.run.stage(PART) / layout.MEDIANS, MedianAnswer, medians)
    return [
        metric
        for label, of_model in by_model.items()
        for metric in _metrics(suite, label, of_model, scores, judged)
    ]


# -- answers and their scores


def sample_answers(
    suite: Suite,
    stage: str,
    prompts: Sequence[Prompt],
    prompts_digest: str,
    *,
    seed_name: str = "evaluate",
    tag: str = "",
) -> list[Answer]:
    """Return ``suite.samples`` answers of every candidate to every prompt, each with its own seed.

    The seeds are the same for all candidates. ``tag`` distinguishes the ids of two stages with the same prompts.
    """

    async def answer(model: Model, label: str, item: tuple[Prompt, int]) -> Answer:
        prompt, number = item
        sampling = replace(suite.sampling, seed=seed_of(suite.seed, seed_name, prompt.id, number))
        # Not `respond`, because an empty answer is measured here, not left out.
        completion = await model.generate(prompt.conversation, sampling)
        response = Response(f"{prompt.id}.{number}", prompt, completion)
        return Answer(f"{response.id}{tag}.{label}", label, response, verdict(response))

    return suite.answered(
        stage,
        Answer,
        lambda label: {f"{p.id}.{n}{tag}.{label}": (p, n) for p in prompts for n in range(suite.samples)},
        answer,
        config={"samples": suite.samples, **suite.sampling_config},
        inputs={"the prompts": prompts_digest},
    )


def _score(suite: Suite, name: str, answers: Sequence[Answer]) -> ScoresById:
    async def step(score: Score, answer: Answer) -> AnswerScore:
        try:
            return AnswerScore(answer.id, await score(conversation_with(answer)))
        except RecordError as error:
            return AnswerScore(answer.id, None, str(error))

    inputs = {"the answers": suite.run.output_digest(PART)}
    rows = suite.scored(PART, AnswerScore, {a.id: a for a in answers}, step, name=name, inputs=inputs)
    if unscored := [row for row in rows if row.score is None]:
        suite.say(
            f"{PART}/pm-{name}: {len(unscored)} of {len(rows)} answers cannot be scored; the first: {unscored[0].why}."
        )
    return {row.id: row.score for row in rows}


def _medians(by_model: dict[str, list[Answer]], scores: dict[str, ScoresById]) -> Iterator[MedianAnswer]:
    for name, of in scores.items():
        for label, answers in by_model.items():
            for to_prompt in _by_prompt(answers).values():
                scored = [(score, a.id, a) for a in to_prompt if (score := of[a.id]) is not None]
                if scored:
                    score, _, answer = sorted(scored, key=lambda each: each[:2])[(len(scored) - 1) // 2]
                    prompt, text = answer.response.prompt, answer.response.text
                    row = f"{prompt.id}.{label}.{name}"
                    yield MedianAnswer(row, label, name, prompt, answer.id, text, score, len(scored))


def _by_prompt(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    groups: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[answer.response.prompt.id].append(answer)
    return groups


# -- metrics


def _metrics(
    suite: Suite,
    label: str,
    answers: Sequence[Answer],
    scores: dict[str, ScoresById],
    judged: Sequence[Measure],
) -> list[Metric]:
    texts, shared = [a.response.text for a in answers], _sharing(answers)
    measures = [*MEASURES, Measure("shared_sentence_rate", ALL_KINDS, lambda a: a.id in shared), *judged]
    for name, of in scores.items():
        score = partial(_score_of, of)
        measures += [
            Measure(f"pm_score.{name}", RED, score, UNBOUNDED),
            Measure(f"pm_score_benign.{name}", BENIGN, score, UNBOUNDED),
        ]
    similarities = [self_similarity([a.response.text for a in each]) for each in _by_prompt(answers).values()]
    return [
        *[_metric(suite, label, answers, measure) for measure in measures],
        # No interval, because texts that a bootstrap draws twice would repeat each other.
        Metric("distinct_2", label, distinct_2(texts), None, None, len(texts)),
        mean("self_similarity", label, [x for x in similarities if x is not None], within=SHARE),
    ]


def _score_of(scores: ScoresById, answer: Answer) -> float | None:
    return scores[answer.id]


def _metric(suite: Suite, label: str, answers: Sequence[Answer], measure: Measure) -> Metric:
    """Return one metric. Several answers to one prompt are not independent, so intervals then resample prompts."""
    known = measure.known(answers)
    values, prompts = [value for _, value in known], [answer.response.prompt.id for answer, _ in known]
    if suite.samples == 1:
        return measure.metric(label, values)
    if measure.name.endswith("_rate"):
        return share(measure.name, label, [bool(value) for value in values], prompts, seed=suite.seed)
    return cluster_bootstrap(measure.name, label, values, prompts, seed=suite.seed)


def _sharing(answers: Sequence[Answer]) -> set[str]:
    """Return the ids of answers that share sentences with answers to other prompts.

    The first answers to each prompt are compared with each other, then the second answers, and so on.
    """
    sharing: set[str] = set()
    for nth in zip_longest(*_by_prompt(answers).values()):
        given = [answer for answer in nth if answer is not None]
        sharing |= {a.id for a in compress(given, shares_sentences([a.response.text for a in given]))}
    return sharing
