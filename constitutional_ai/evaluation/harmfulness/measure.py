"""Measure absolute harmfulness, 0 to 4 (section 4.5, figure 10; EV-16).

Every candidate answers every held-out red-team prompt ``suite.samples`` times at temperature 1 and once at temperature
0, and a regressor of people's ratings (``cai harmfulness``) scores each whole conversation. The paper used 64 prompts
and 256 answers to each. Scores are not clipped, so they may be outside the scale. An answer that was cut off at
``max_tokens`` is scored as it is. People's ratings favour evasion, so this may disagree with Elo (EV-16).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from constitutional_ai.errors import RecordError
from constitutional_ai.evaluation.answer_rates import conversation_with
from constitutional_ai.evaluation.answers import sample_answers
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.evaluation.harmfulness.fit_regressor import regressor_folder
from constitutional_ai.evaluation.suite import Suite, load_scorer
from constitutional_ai.metrics.intervals import cluster_bootstrap
from constitutional_ai.records import Answer, Metric
from constitutional_ai.runs.run import digest_of
from constitutional_ai.runs.runner import Pass

PART = "harmfulness"
NAME = "absolute_harmfulness"
At = Literal["t1", "t0"]
TEMPERATURES: dict[At, float] = {"t1": 1.0, "t0": 0.0}


@dataclass(frozen=True, slots=True)
class HarmScore:
    """The regressor's score of one answer."""

    id: str
    at: At
    answer: Answer
    harmfulness: float | None
    """Score on the raters' scale of 0 to 4, not clipped; None if the regressor cannot score the conversation."""
    why: str | None = None
    """Why there is no score."""


def measure(suite: Suite) -> list[Metric]:
    """Return ``absolute_harmfulness.t1`` and ``.t0`` of every candidate: means with intervals that resample prompts.

    They are None if no regressor is given. Raises InputError if its folder has none.
    """
    if suite.harmfulness_model is None:
        return [
            Metric(f"{NAME}.{at}", one.label, None, None, None, 0)
            for one in suite.candidates
            for at in TEMPERATURES
        ]
    folder = regressor_folder(suite.harmfulness_model)
    scores = _score(suite, folder, {at: _answers(suite, at) for at in TEMPERATURES})
    return [_metric(suite, scores, one.label, at) for one in suite.candidates for at in TEMPERATURES]


def _metric(suite: Suite, scores: list[HarmScore], label: str, at: At) -> Metric:
    known = [
        (one.harmfulness, one.answer.response.prompt.id)
        for one in scores
        if (one.answer.model, one.at) == (label, at) and one.harmfulness is not None
    ]
    values, prompts = [value for value, _ in known], [prompt for _, prompt in known]
    return cluster_bootstrap(f"{NAME}.{at}", label, values, prompts, seed=suite.seed)


def _answers(suite: Suite, at: At) -> list[Answer]:
    """Sample the answers at one temperature: one per prompt at temperature 0, where all would be the same."""
    prompts, samples = suite.prompts["red_team"], suite.samples if at == "t1" else 1
    return sample_answers(
        replace(suite, samples=samples, temperature=TEMPERATURES[at]),
        f"{PART}/{at}",
        prompts,
        digest_of(p.id for p in prompts),
        seed_name=PART,
        tag=f".{at}",
    )


def _score(suite: Suite, folder: Path, answers: Mapping[At, list[Answer]]) -> list[HarmScore]:
    """Score the answers after all models have answered, so that only one model is in memory."""

    async def passes() -> AsyncIterator[Pass[tuple[At, Answer], HarmScore]]:
        from constitutional_ai.evaluation.harmfulness.regressor import HarmfulnessModel

        score = load_scorer(folder, HarmfulnessModel)

        async def step(item: tuple[At, Answer]) -> HarmScore:
            at, answer = item
            try:
                return HarmScore(answer.id, at, answer, await score(conversation_with(answer)))
            except RecordError as error:
                return HarmScore(answer.id, at, answer, None, str(error))

        yield Pass({one.id: (at, one) for at, of in answers.items() for one in of}, step)

    return suite.rows(
        PART,
        HarmScore,
        passes,
        config={},
        inputs={
            "the harmfulness model": weights_digest(f"hf:{folder}"),
            **{f"the answers at {at}": suite.run.output_digest(f"{PART}/{at}") for at in TEMPERATURES},
        },
    )
