"""Absolute harmfulness, 0 to 4 (section 4.5, figure 10; EV-16).

Every model answers every held-out red-team prompt ``suite.samples`` times at temperature 1 and once at temperature 0,
and a regressor of people's ratings (``cai harmfulness``) scores each whole conversation. The paper had 64 prompts and
256 answers to each. Scores are clipped nowhere, so they may lie outside the scale; answers cut off at the cap are
scored as they are. People's ratings reward evasion, so this need not agree with Elo (EV-16).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from constitutional_ai.errors import RecordError
from constitutional_ai.evaluation.answer_rates import verdict
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.evaluation.harmfulness.agreement import regressor_folder
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.metrics.intervals import cluster_bootstrap
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Answer, Message, Metric, Prompt, Response
from constitutional_ai.runs.run import digest_of
from constitutional_ai.runs.runner import Pass
from constitutional_ai.seeding import seed_of

PART = "harmfulness"
NAME = "absolute_harmfulness"
At = Literal["t1", "t0"]
TEMPERATURES: dict[At, float] = {"t1": 1.0, "t0": 0.0}


@dataclass(frozen=True, slots=True)
class HarmScore:
    id: str
    at: At
    answer: Answer
    harmfulness: float | None
    """On the raters' scale of 0 to 4, not clipped to it; None where the regressor cannot read the conversation."""
    why: str | None = None
    """Why there is none."""


def measure(suite: Suite) -> list[Metric]:
    """``absolute_harmfulness.t1`` and ``.t0`` of every model: means, with intervals that draw whole prompts.

    None where there is no regressor. Raises InputError where its folder holds none.
    """
    if suite.harmfulness_model is None:
        return [
            Metric(f"{NAME}.{at}", one.label, None, None, None, 0)
            for one in suite.candidates
            for at in TEMPERATURES
        ]
    folder = regressor_folder(suite.harmfulness_model)
    scored = _scored(suite, folder, {at: _answers(suite, at) for at in TEMPERATURES})
    return [_metric(suite, scored, one.label, at) for one in suite.candidates for at in TEMPERATURES]


def _metric(suite: Suite, scored: list[HarmScore], label: str, at: At) -> Metric:
    found = [
        (one.harmfulness, one.answer.response.prompt.id)
        for one in scored
        if (one.answer.model, one.at) == (label, at) and one.harmfulness is not None
    ]
    values, prompts = [value for value, _ in found], [prompt for _, prompt in found]
    return cluster_bootstrap(f"{NAME}.{at}", label, values, prompts, seed=suite.seed)


def _answers(suite: Suite, at: At) -> list[Answer]:
    """At temperature 0 all answers of a model to a prompt would be one."""
    prompts, samples = suite.prompts["red_team"], suite.samples if at == "t1" else 1

    async def passes() -> AsyncIterator[Pass[tuple[Prompt, int], Answer]]:
        for candidate in suite.candidates:
            with suite.loaded(candidate.model) as model:
                yield Pass(
                    {_name(p, n, at, candidate.label): (p, n) for p in prompts for n in range(samples)},
                    partial(_say, at=at, model=model, label=candidate.label, suite=suite),
                )

    return suite.rows(
        f"{PART}/{at}",
        Answer,
        passes,
        config={"samples": samples, "temperature": TEMPERATURES[at], "max_tokens": suite.max_tokens},
        inputs={"the prompts": digest_of(p.id for p in prompts)},
    )


def _name(prompt: Prompt, number: int, at: At, label: str) -> str:
    return f"{prompt.id}.{number}.{at}.{label}"


async def _say(item: tuple[Prompt, int], *, at: At, model: Model, label: str, suite: Suite) -> Answer:
    """A model that says nothing is scored too, not passed over."""
    prompt, number = item
    seed = seed_of(suite.seed, PART, prompt.id, number)  # the same for all models: they differ, not the draws
    draw = Sampling(temperature=TEMPERATURES[at], max_tokens=suite.max_tokens, seed=seed)
    response = Response(f"{prompt.id}.{number}", prompt, await model.generate(prompt.conversation, draw))
    return Answer(_name(prompt, number, at, label), label, response, verdict(response))


def _scored(suite: Suite, folder: Path, answers: Mapping[At, list[Answer]]) -> list[HarmScore]:
    """After all models have answered, so that there is one in memory at a time."""

    async def passes() -> AsyncIterator[Pass[tuple[At, Answer], HarmScore]]:
        from constitutional_ai.evaluation.harmfulness.regressor import HarmfulnessModel
        from constitutional_ai.rl_cai.preference_model.scorable import Scorable, finite

        regressor, scorable = HarmfulnessModel(folder), Scorable(folder)

        async def step(item: tuple[At, Answer]) -> HarmScore:
            at, answer = item
            talk = (*answer.response.prompt.conversation, Message("assistant", answer.response.text))
            try:
                scorable.check(talk)
            except RecordError as error:
                return HarmScore(answer.id, at, answer, None, str(error))
            return HarmScore(answer.id, at, answer, finite([await regressor.reward(talk)])[0])

        yield Pass({one.id: (at, one) for at, found in answers.items() for one in found}, step)

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
