"""The stages of AI feedback: pairs of answers, their labels, and the preference model (section 4.1; FB, PM)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from constitutional_ai.constitutions.control import describe_control
from constitutional_ai.data.hub_files import local_file
from constitutional_ai.data.lines import format_counts
from constitutional_ai.errors import GateClosed
from constitutional_ai.records import Checkpoint, Comparison, GateAnswer, PreferenceLabel, RevisionChain, Usage
from constitutional_ai.rl_cai.feedback.compare import compare, compare_revision
from constitutional_ai.rl_cai.feedback.contrast import contrast, known_label
from constitutional_ai.rl_cai.feedback.gate import Verdict, gate_questions, gate_result
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.likelihood import Likelihood
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.rl_cai.preference_model import training_pairs
from constitutional_ai.rl_cai.preference_model.settings import HelpfulnessFile
from constitutional_ai.rl_cai.preference_model.train import train_preference_model
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.durable import discard, sync_tree
from constitutional_ai.runs.rows import digest_file, write_atomically
from constitutional_ai.runs.run import Trained, digest_of
from constitutional_ai.runs.runner import Pass
from constitutional_ai.seeding import seed_of
from constitutional_ai.stages.calls import call_others
from constitutional_ai.stages.job import Job, sources
from constitutional_ai.training.settings import TrainingJob

FAULTS: dict[Verdict, str] = {
    "worse": "The feedback model is worse than chance on questions whose right answer is clear, so its labels may be "
    "the wrong way round.",
    "unclear": "The feedback model is no better than chance on questions whose right answer is clear, so its labels "
    "may be noise.",
    "undecided": "The feedback model prefers neither answer to any question whose right answer is clear, so its labels "
    "may all be one half.",
}


def comparisons(job: Job) -> None:
    """Make pairs of the SL-CAI model's answers to red-team prompts (FB-1, FB-2)."""
    setting, prompts = job.recipe.comparisons, job.training_prompts("red_team")
    if not job.in_recipe(layout.COMPARISONS):
        return

    async def passes() -> AsyncIterator[Pass[Any, Comparison]]:
        items = {f"{p.id}.{n}": (p, n) for p in prompts for n in range(setting.per_prompt)}
        async with job.loaded_in_loop(job.trained_model(layout.SL_CAI_MODEL), layout.COMPARISONS) as model:
            how: Any = {"model": model, "sampling": setting.sampling, "seed": job.recipe.seed}
            step: Any = compare
            if setting.contrast:
                step = partial(contrast, constitution=job.constitution, kind=setting.contrast)
            yield Pass(items, lambda item: step(*item, **how))
        if setting.revised:
            revised = {f"{chain.id}.revised": chain for chain in _revised_chains(job)}
            yield Pass(revised, partial(compare_revision, seed=job.recipe.seed))

    job.make_rows(
        layout.COMPARISONS,
        Comparison,
        passes,
        config=job.config("comparisons"),
        inputs={
            "prompts": digest_of(p.id for p in prompts),
            **({"constitution": job.constitution.digest} if setting.contrast else {}),
            **(job.outputs(layout.REVISIONS) if setting.revised else {}),
            **job.outputs(layout.SL_CAI_MODEL),
        },
    )


def _revised_chains(job: Job) -> list[RevisionChain]:
    """Return the chains of red-team prompts with a sound revision."""
    chains = job.run.rows(layout.REVISIONS, RevisionChain)
    return [chain for chain in chains if chain.asks_for_harm and chain.sound_revisions]


def dialogues_before(job: Job) -> dict[str, str]:
    """Return that worked dialogues precede a likelihood, which they did not in early runs."""
    setting = job.recipe.feedback
    shown = setting.method == Likelihood.name and setting.format == "plain" and job.few_shots
    return {"worked_dialogues": "before each assistant"} if shown else {}


def preference_labels(job: Job) -> None:
    """Label the pairs with the feedback model, under the constitution and after the gate (FB-3 to FB-7).

    Pairs whose better answer is known are labelled so, and neither the model nor the gate is asked.
    """
    if not job.in_recipe(layout.PREFERENCE_LABELS):
        return
    known = job.recipe.comparisons.contrast is not None
    budget = job.budget(layout.PREFERENCE_LABELS)

    async def passes() -> AsyncIterator[Pass[Comparison, PreferenceLabel]]:
        if known:
            certain = partial(known_label, constitution=job.constitution)
            yield Pass({c.id: c for c in job.run.rows(layout.COMPARISONS, Comparison)}, certain)
            return
        async with job.loaded_in_loop(job.recipe.models.feedback, layout.PREFERENCE_LABELS) as model:
            step = partial(
                label,
                model=model,
                constitution=job.constitution,
                settings=job.recipe.feedback,
                few_shots=load_few_shots(job.few_shots),
                seed=job.recipe.seed,
            )
            # The questions are shorter than most pairs, so that their cost is no measure of that of labels.
            spent = await _pass_the_gate(job, step, budget.for_other_records())
            yield Pass({c.id: c for c in job.run.rows(layout.COMPARISONS, Comparison)}, step, spent)

    job.make_rows(
        layout.PREFERENCE_LABELS,
        PreferenceLabel,
        passes,
        config=job.config()
        if known
        else job.config("feedback", "models.feedback") | job.few_shots_digest() | dialogues_before(job),
        inputs={"constitution": job.constitution.digest, **job.outputs(layout.COMPARISONS)},
        budget=budget,
        still_fits=lambda: job.is_from(
            layout.PREFERENCE_LABELS,
            PreferenceLabel,
            lambda one: one.comparison,
            layout.COMPARISONS,
            Comparison,
        ),
    )


async def _pass_the_gate(job: Job, step: Callable[[Comparison], Any], budget: Budget) -> Usage:
    """Ask the feedback model the gate questions, and return the tokens that they cost, with those that failed.

    Raises GateClosed if it is no better than chance and the recipe says ``gate: stop`` (pitfall 27). A control run gets
    no verdict, and is not stopped: without content, a judge may well be at chance.
    """
    questions = [question.comparison(job.recipe.seed) for question in gate_questions()]
    sides = {comparison.id: side for comparison, side in questions}

    async def answer(comparison: Comparison) -> GateAnswer:
        return GateAnswer(comparison.id, await step(comparison), sides[comparison.id])

    gate = await job.run.make_extra_rows(
        layout.PREFERENCE_LABELS,
        layout.GATE,
        GateAnswer,
        Pass({comparison.id: comparison for comparison, _ in questions}, answer),
        budget=budget,
    )
    _check_gate(job, list(gate.records))
    return gate.tokens


def _check_gate(job: Job, answers: Sequence[GateAnswer]) -> None:
    result = gate_result(job.recipe.models.feedback, answers)
    job.notify(f"gate: the feedback model gets {result}.")
    if control := describe_control(job.recipe.control, job.constitution):
        job.notify(f"gate: this is a control run ({control}), so that is no verdict on the feedback model.")
        return
    if result.passed:
        return
    warning = f"{FAULTS[result.verdict]} Use a larger models.feedback, or another feedback.method."
    if job.recipe.feedback.gate == "stop":
        raise GateClosed(warning + " To continue anyway, set feedback.gate=warn.")
    job.notify("warning: " + warning)


def preference_model(job: Job) -> None:
    """Train the preference model on AI harmlessness labels and people's helpfulness comparisons (PM-1 to PM-4)."""
    setting, seed = job.recipe.preference_model, job.recipe.seed
    stage = layout.PREFERENCE_MODEL

    if not job.preference_model_stages:
        return

    def train(folder: Path) -> Trained:
        rows, unusable = labelled_pairs(job, stage)
        rows, notes = job.usable_rows(stage, rows, "preference_model")
        held_out, rows = training_pairs.held_out(rows, setting.held_out, seed)
        rows, mixture = job.mix_rows(stage, rows, "preference_model", *training_pairs.HELPFUL)
        second, rows = training_pairs.held_out(rows, 0.5 if setting.second else 0, seed_of(seed, "second"))
        training = job.training_job(folder, rows, "preference_model")
        start: dict[str, Any] = {}
        if setting.pretraining:
            start = {"base": pretrain(job, folder / layout.PRETRAINING)}
        if setting.second:
            _train_beside(job, folder / layout.SECOND, second, held_out, **start)
        checkpoint = _train_together(job, replace(training, **start), held_out)
        counts = {"sources": dict(sources(rows)), "held_out": dict(sources(held_out)), "unusable": unusable}
        return Trained(checkpoint, len(rows), notes | mixture | counts)

    job.make_model(
        stage,
        train,
        config=job.config("preference_model", "models.preference_model", "models.pretrained"),
        inputs={
            **helpful_inputs(job),
            **(
                {"pretraining": digest_file(local_file(setting.pretraining.file))}
                if setting.pretraining
                else {}
            ),
            **job.outputs(*job.in_recipe(layout.PREFERENCE_LABELS)),
        },
    )


def pretrain(job: Job, folder: Path) -> Path:
    """Pretrain the preference model, and return the folder of its weights, the base of the main training (PM-3)."""
    setting = job.recipe.preference_model.pretraining
    assert setting is not None
    pairs = _peoples_pairs(job, "pretraining", setting)
    rows, _ = job.usable_rows("pretraining", pairs.rows, "preference_model")
    rates = {"learning_rate": setting.learning_rate, "epochs": setting.epochs}
    _train_beside(job, folder, rows, settings=job.recipe.preference_model.model_copy(update=rates))
    return folder / layout.WEIGHTS


def _train_beside(
    job: Job, folder: Path, rows: list[dict[str, Any]], held_out: Sequence[dict[str, Any]] = (), **changes: Any
) -> None:
    """Train another preference model of the stage, unless it is complete; ``changes`` are fields of its job."""
    folder.mkdir(exist_ok=True)
    if not (folder / layout.TRAINED).exists():
        training = job.training_job(folder, rows, "preference_model")
        checkpoint = _train_together(job, replace(training, **changes), held_out)
        sync_tree(folder)
        write_atomically(folder / layout.TRAINED, checkpoint.digest + "\n")
        discard(folder / layout.CHECKPOINTS)


def _train_together(job: Job, training: TrainingJob[Any], held_out: Sequence[dict[str, Any]]) -> Checkpoint:
    """Train a preference model, with the other processes where there are any."""
    call_others("preference_model", job.recipe, job.run.folder, training)
    return train_preference_model(training, held_out)


def helpful_inputs(job: Job) -> dict[str, str]:
    """Return the digests of people's comparisons and, where harmless answers are revised, of the revisions."""
    file = training_pairs.helpfulness_file(job.recipe.preference_model.helpfulness.file)
    revised = job.outputs(layout.REVISIONS) if job.recipe.revisions.harmless else {}
    return {"helpfulness": digest_file(file), **revised}


def labelled_pairs(job: Job, stage: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the AI's pairs and the helpful ones, and the number of people's that are unusable, by reason."""
    people = _peoples_pairs(job, stage, job.recipe.preference_model.helpfulness)
    labels = job.run.rows(layout.PREFERENCE_LABELS, PreferenceLabel)
    chains = job.run.rows(layout.REVISIONS, RevisionChain) if job.recipe.revisions.harmless else ()
    helpful = people.rows + training_pairs.over_refusals(chains)
    return training_pairs.examples(labels) + helpful, dict(people.unusable)


def _peoples_pairs(job: Job, training: str, setting: HelpfulnessFile) -> training_pairs.Helpfulness:
    """Read people's pairs, and tell the user how many pairs of the file are left out."""
    pairs = training_pairs.helpfulness(setting.file, setting.limit, job.recipe.seed, setting.stronger_than)
    if pairs.unusable:
        job.notify(f"{training}: left out of {setting.file}: {format_counts(pairs.unusable)}.")
    return pairs
