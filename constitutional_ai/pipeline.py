"""Run all stages of the method in order, as in figure 1 of the paper from top left to bottom right.

``PIPELINE`` gives the order; the stages are in ``constitutional_ai/stages/``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from constitutional_ai.constitutions.constitution import Constitution, load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.data.prompts import KINDS, load_prompts_of_kind
from constitutional_ai.errors import InputError
from constitutional_ai.models.chat_template import DATE
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.rl_cai.preference_model import training_pairs
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Progress
from constitutional_ai.stages.check_models import check_models, usable_prompts
from constitutional_ai.stages.feedback import comparisons, preference_labels, preference_model
from constitutional_ai.stages.held_out import evaluation
from constitutional_ai.stages.job import Job
from constitutional_ai.stages.reinforcement import rl_cai_model
from constitutional_ai.stages.supervised import drafts, responses, revisions, sl_cai_model
from constitutional_ai.training import trackers

PIPELINE: dict[str, Callable[[Job], None]] = {
    layout.PROMPTS: drafts,
    layout.RESPONSES: responses,
    layout.REVISIONS: revisions,
    layout.SL_CAI_MODEL: sl_cai_model,
    layout.COMPARISONS: comparisons,
    layout.PREFERENCE_LABELS: preference_labels,
    layout.PREFERENCE_MODEL: preference_model,
    layout.RL_CAI_MODEL: rl_cai_model,
    layout.EVALUATION: evaluation,
}


def run_pipeline(
    recipe: Recipe,
    *,
    progress: Progress,
    notify: Callable[[str], None],
    until: str | None = None,
    redo: str | None = None,
    after_stage: Callable[[Run, Recipe, Constitution], object] = lambda *_: None,
) -> Run:
    """Complete the stages of a run, in order, up to and including ``until``.

    ``redo`` names a stage that is first removed, with all later ones, which depend on it. ``after_stage`` is called
    after each stage. Raises CaiError when a stage cannot be completed; complete stages are kept.
    """
    trackers.check(recipe.report_to)
    constitution = apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    check_principles(recipe, constitution)
    prompts = {kind: load_prompts_of_kind(getattr(recipe.prompts, kind).file, kind) for kind in KINDS}
    # Read one row now, so that a bad file raises here and not hours later.
    training_pairs.helpfulness(recipe.preference_model.helpfulness.file, 1, 0)
    texts = {layout.RECIPE: recipe.to_yaml(), layout.CONSTITUTION: constitution.to_yaml()}
    with open_run(Path(recipe.out), texts, progress) as run:
        run = replace(
            run, concurrency=recipe.concurrency, max_failures=recipe.max_failures, date=DATE.isoformat()
        )
        check_models(recipe, _unfinished(run, until, redo), notify)
        prompts = usable_prompts(recipe, prompts, notify)
        job = Job(run, recipe, constitution, prompts, notify)
        job.few_shots_digest()
        for stage, make in PIPELINE.items():
            if stage == redo:  # only now, because the earlier stages have been checked
                run.remove_stages(*list(PIPELINE)[list(PIPELINE).index(redo) :])
            make(job)
            after_stage(run, recipe, constitution)
            if stage == until:
                break
        return run


def _unfinished(run: Run, until: str | None, redo: str | None) -> set[str]:
    """Return the stages that are yet to be completed."""
    stages = list(PIPELINE)
    again = stages[stages.index(redo) :] if redo else []
    wanted = stages[: stages.index(until) + 1] if until else stages
    return {stage for stage in wanted if stage in again or run.manifest(stage) is None}


def check_principles(recipe: Recipe, constitution: Constitution) -> None:
    """Raise InputError if a constitution lacks principles that the recipe needs."""
    if not constitution.for_revision or not constitution.for_preference:
        raise InputError(
            f"constitution '{recipe.constitution}' needs a principle with 'revision' and one with 'preference'. "
            "Add the missing one."
        )
    if not METHODS[recipe.feedback.method].principles(constitution):
        raise InputError(
            f"feedback.method={recipe.feedback.method} needs principles with 'upheld' and 'broken', and constitution "
            f"'{recipe.constitution}' has none. Add them, or set feedback.method=multiple_choice."
        )
