"""What the processes beside rank zero do: they wait, and join each training that it calls for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.data.prompts import Prompts
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Kind
from constitutional_ai.rl_cai.preference_model.train import fit
from constitutional_ai.runs.guarded_run import do_nothing
from constitutional_ai.runs.run import Run
from constitutional_ai.sl_cai.finetune import finetune
from constitutional_ai.stages import reinforcement
from constitutional_ai.stages.calls import Call, next_call
from constitutional_ai.stages.check_models import apart, load_all_prompts, usable_prompts
from constitutional_ai.stages.job import Job


def follow() -> None:
    """Join trainings until there are no more. Writes nothing but its part of checkpoints."""
    while call := next_call():
        _join(call)


def _join(call: Call) -> None:
    if call.section == "sl_cai":
        finetune(call.job)
    elif call.section == "preference_model":
        fit(call.job)
    else:
        reinforcement.join(_job(call.recipe, call.run), call.job)


def _job(recipe: Recipe, folder: Path) -> Job:
    """Return a job that reads the run of rank zero, and caches no calls, because that file has one writer."""
    constitution = apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    prompts = _prompts(recipe) if recipe.rl_cai.asks_feedback_model else {}
    reads_only = replace(Run(folder), max_failures=recipe.max_failures)
    uncached = recipe.model_copy(update={"cache": None})
    return Job(reads_only, uncached, constitution, prompts, do_nothing)


def _prompts(recipe: Recipe) -> dict[Kind, Prompts]:
    """Return the prompts of rank zero, of which a reward by principles needs the kinds."""
    return usable_prompts(recipe, apart(load_all_prompts(recipe), do_nothing), do_nothing)
