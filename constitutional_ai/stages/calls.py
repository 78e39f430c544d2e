"""What rank zero says to the other processes before a training, so that they join it: which one, and on what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from constitutional_ai.errors import InputError
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.runs import layout
from constitutional_ai.training import processes
from constitutional_ai.training.settings import TrainingJob

Section = Literal["sl_cai", "preference_model", "rl_cai"]
"""A training's section of the recipe."""
SECTIONS: tuple[Section, ...] = ("sl_cai", "preference_model", "rl_cai")


@dataclass(frozen=True, slots=True)
class Call:
    """A training to join."""

    section: Section
    recipe: Recipe
    run: Path
    job: TrainingJob[Any]


def call_others(section: Section, recipe: Recipe, run: Path, job: TrainingJob[Any]) -> None:
    """Tell the other processes to join a training. Its rows are in its folder already, in ``dataset.jsonl``."""
    text = {
        "section": section,
        "recipe": recipe.model_dump(mode="json"),
        "run": str(run.resolve()),
        "folder": str(job.folder.resolve()),
        "base": str(job.base),
        "base_name": job.base_name,
        "settings": job.settings.model_dump(mode="json"),
        "seed": job.seed,
    }
    processes.agreed(json.dumps(text))


def next_call() -> Call | None:
    """Wait for a call of rank zero; return None when there will be none."""
    text = processes.agreed()
    if text == processes.NO_CALL:
        return None
    call = json.loads(text)
    recipe, folder = Recipe.model_validate(call["recipe"]), Path(call["folder"])
    settings = type(getattr(recipe, call["section"])).model_validate(call["settings"])
    lines = (folder / layout.DATASET).read_bytes().splitlines()  # of text, these would be more
    job = TrainingJob(
        rows=[json.loads(line) for line in lines],
        base=call["base"],
        base_name=call["base_name"],
        folder=folder,
        settings=settings,
        seed=call["seed"],
        on_step=lambda done, total: None,
    )
    return Call(call["section"], recipe, Path(call["run"]), job)


def check_processes(recipe: Recipe) -> None:
    """Raise InputError, before the run, if the recipe's trainings cannot be done by this many processes."""
    for section in SECTIONS:
        processes.rows_each(getattr(recipe, section), section)
    reinforcement = recipe.rl_cai
    group = reinforcement.answers if reinforcement.method.samples else 1
    if processes.rows_each(reinforcement) % group:
        raise InputError(
            f"all rl_cai.answers={group} answers to a prompt belong to one process, and {processes.count()} processes "
            f"share rl_cai.batch_size={reinforcement.batch_size}: make it a multiple of {group * processes.count()}."
        )
    if processes.shard_weights():
        if reinforcement.algorithm == "ppo":
            raise InputError(
                "ppo reads hidden states, which sharded weights do not give: set rl_cai.algorithm=rloo."
            )
        if reinforcement.snapshot_every:
            raise InputError("sharded weights are gathered once, at the end: set rl_cai.snapshot_every=null.")
