"""Run the last stage, in which every model answers held-out prompts, which no training used."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict, replace
from typing import Any

from constitutional_ai import machine
from constitutional_ai.constitutions.in_context import as_instructions
from constitutional_ai.data.prompts import KINDS, sample_prompts
from constitutional_ai.evaluation import answer_rates
from constitutional_ai.models.instructed import InstructedModel
from constitutional_ai.records import Answer, Message, Prompt, Response
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.run import Run, digest_of
from constitutional_ai.runs.runner import Pass
from constitutional_ai.seeding import seed_of
from constitutional_ai.stages.job import Job


def evaluation(job: Job) -> None:
    """Sample every model's answers to held-out prompts, apply the detectors, and write the rates."""
    setting, seed = job.recipe.evaluation, job.recipe.seed
    prompts = [
        prompt
        for kind in KINDS
        for prompt in sample_prompts(job.prompts[kind].held_out, getattr(setting, kind), seed)
    ]
    config = job.config("evaluation", "models.helpful")
    del config["evaluation.prompts"]  # the digest below says which prompts these are, wherever their file is
    models: dict[str, str] = {
        layout.START: job.recipe.models.helpful,
        layout.SL_CAI: job.trained_model(layout.SL_CAI_MODEL),
        layout.RL_CAI: job.trained_model(layout.RL_CAI_MODEL),
        **({layout.PROMPTED: job.recipe.models.helpful} if setting.prompted else {}),
    }

    async def passes() -> AsyncIterator[Pass[Prompt, Answer]]:
        rewards = job.preference_model()
        for role, name in models.items():
            async with job.loaded_in_loop(name, layout.EVALUATION) as model:
                if role == layout.PROMPTED:
                    model = InstructedModel(model, as_instructions(job.constitution))

                async def step(prompt: Prompt, model: Any = model, role: str = role) -> Answer:
                    # Not `respond`: an empty answer is measured here, not a failure.
                    sampling = replace(setting.sampling, seed=seed_of(seed, "evaluate", prompt.id))
                    response = Response(
                        f"{prompt.id}.0", prompt, await model.generate(prompt.conversation, sampling)
                    )
                    talk = (*prompt.conversation, Message("assistant", response.text))
                    reward = await rewards.reward(talk) if rewards else None
                    return Answer(f"{prompt.id}.{role}", role, response, answer_rates.verdict(response), reward)

                yield Pass({f"{p.id}.{role}": p for p in prompts}, step)
            del model, step
            machine.release_memory()  # before the next model is loaded

    def notes(answers: Iterable[Answer]) -> dict[str, Any]:
        # Called before stage.json is written, so that a complete stage has its metrics.
        write_metrics(job.run, answers, list(models))
        return {}

    job.make_rows(
        layout.EVALUATION,
        Answer,
        passes,
        config=config,
        inputs={
            "prompts": digest_of(p.id for p in prompts),
            **({"constitution": job.constitution.digest} if setting.prompted else {}),
            **job.outputs(layout.SL_CAI_MODEL, *job.preference_model_stages, layout.RL_CAI_MODEL),
        },
        notes=notes,
    )


def write_metrics(run: Run, answers: Iterable[Answer], models: list[str]) -> None:
    """Write the rates of all answers to ``metrics.json``."""
    metrics = answer_rates.metrics(list(answers), models)
    text = json.dumps([asdict(m) for m in metrics], indent=1) + "\n"
    write_atomically(run.stage(layout.EVALUATION) / layout.METRICS, text)
