"""The whole method, stage by stage: the first figure of the paper, from top left to bottom right.

``PIPELINE`` is the order; the stages are in ``cai/stages/``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cai.constitution import load_constitution
from cai.constitution_control import controlled
from cai.errors import InputError
from cai.job import KINDS, Job
from cai.recipe import Recipe
from cai.report.card import write_cards
from cai.rl_cai import preference_pairs
from cai.runs.run import Run, open_run
from cai.runs.stage import Progress
from cai.sl_cai import red_team
from cai.stages.evaluation import evaluation
from cai.stages.feedback import comparisons, preference_labels, the_preference_model
from cai.stages.reinforcement import rl_cai_model
from cai.stages.supervised import drafts, responses, revisions, sl_cai_model
from cai.training import trackers

PIPELINE: dict[str, Callable[[Job], None]] = {
    "00-prompts": drafts,
    "01-responses": responses,
    "02-revisions": revisions,
    "03-sl-cai-model": sl_cai_model,
    "04-comparisons": comparisons,
    "05-preference-labels": preference_labels,
    "06-preference-model": the_preference_model,
    "07-rl-cai-model": rl_cai_model,
    "08-evaluation": evaluation,
}


def run_pipeline(
    recipe: Recipe,
    *,
    progress: Progress,
    say: Callable[[str], None],
    until: str | None = None,
    redo: str | None = None,
) -> Run:
    """Makes what is missing of a run, in order, up to and including ``until``; ``redo`` first forgets a stage."""
    trackers.check(recipe.report_to)
    constitution = controlled(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    if not constitution.for_revision or not constitution.for_preference:
        raise InputError(
            f"constitution '{recipe.constitution}' lacks principles to revise under, or to compare under."
        )
    if recipe.feedback.method == "likelihood" and not constitution.for_likelihood:
        raise InputError(
            f"feedback.method=likelihood needs principles with 'upheld' and 'broken', and constitution "
            f"'{recipe.constitution}' has none. Add them, or set feedback.method=multiple_choice."
        )
    prompts = {kind: red_team.load_prompts(getattr(recipe.prompts, kind).file, kind) for kind in KINDS}
    preference_pairs.helpfulness(recipe.preference_model.helpfulness.file, 1, 0)  # a bad file says so now
    texts = {"recipe.yaml": recipe.to_yaml(), "constitution.yaml": constitution.to_yaml()}
    with open_run(Path(recipe.out), texts, progress) as run:
        job = Job(run, recipe, constitution, prompts, say)
        job.shown_first()
        for stage, make in PIPELINE.items():
            if stage == redo:  # only now: what comes before has been checked
                run.forget(*list(PIPELINE)[list(PIPELINE).index(redo) :])  # later ones are made from its output
            make(job)
            write_cards(run, recipe, constitution)
            if stage == until:
                break
        return run
