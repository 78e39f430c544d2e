"""The last stage: every model answers what no training saw."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

from cai.evaluation import harm
from cai.job import KINDS, RL_CAI, SL_CAI, START, Job
from cai.records import (
    Answer,
    Message,
    Prompt,
    Response,
)
from cai.rl_cai import (
    preference_model,
)
from cai.runs.rows import write_whole
from cai.runs.run import Run, digest_of
from cai.runs.stage import Pass
from cai.seeding import seed_of
from cai.sl_cai import red_team
from cai.stages.feedback import the_pm


def evaluation(job: Job) -> None:
    """Held-out prompts → every model's answers, verdicts and rates."""
    setting, seed = job.recipe.evaluation, job.recipe.seed
    prompts = [
        prompt
        for kind in KINDS
        for prompt in red_team.some(job.prompts[kind].held_out, getattr(setting, kind), seed)
    ]
    pm = the_pm(job)
    models = {
        START: job.recipe.models.helpful,
        SL_CAI: job.trained("03-sl-cai-model"),
        RL_CAI: job.trained("07-rl-cai-model"),
        **(snapshots(job) if setting.snapshots else {}),
    }

    async def passes() -> AsyncIterator[Pass[Prompt, Answer]]:
        rewards = preference_model.PreferenceModel(job.weights(pm[0])) if pm else None
        for role, name in models.items():
            with job.loaded(name) as model:

                async def step(prompt: Prompt, model: Any = model, role: str = role) -> Answer:
                    # Not `respond`: a model that says nothing is measured here, not passed over.
                    draw = replace(setting.sampling, seed=seed_of(seed, "evaluate", prompt.id))
                    response = Response(
                        f"{prompt.id}.0", prompt, await model.generate(prompt.conversation, draw)
                    )
                    talk = (*prompt.conversation, Message("assistant", response.text))
                    reward = await rewards.reward(talk) if rewards else None
                    return Answer(f"{prompt.id}.{role}", role, response, harm.verdict(response), reward)

                yield Pass({f"{p.id}.{role}": p for p in prompts}, step)
            del model, step  # before the next is loaded
        # Before stage.json: a complete stage has its metrics.
        write_metrics(job.run, list(models))

    job.rows(
        "08-evaluation",
        Answer,
        passes,
        config=job.config("evaluation", "models.helpful"),
        inputs={
            "prompts": digest_of(p.id for p in prompts),
            **job.made("03-sl-cai-model", *pm, "07-rl-cai-model"),
        },
    )


def snapshots(job: Job) -> dict[str, str]:
    """RL-CAI after so many prompts: ``rl-cai@00000064`` and so on (RL-6)."""
    folders = sorted((job.run.stage("07-rl-cai-model").resolve() / "snapshots").glob("[0-9]*[0-9]"))
    return {f"{RL_CAI}@{folder.name}": f"hf:{folder}" for folder in folders}


def write_metrics(run: Run, models: list[str]) -> None:
    metrics = harm.metrics(run.rows("08-evaluation", Answer), models)
    text = json.dumps([asdict(m) for m in metrics], indent=1) + "\n"
    write_whole(run.stage("08-evaluation") / "metrics.json", text)
