"""The stages of AI feedback: pairs of answers, their labels, and the preference model (section 4.1; FB, PM)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from constitutional_ai.data.lines import format_counts
from constitutional_ai.errors import GateClosed
from constitutional_ai.records import Comparison, GateAnswer, PreferenceLabel, Prompt, Usage, usage
from constitutional_ai.rl_cai.feedback.compare import compare
from constitutional_ai.rl_cai.feedback.gate import gate_questions, gate_result
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.rl_cai.preference_model import training_pairs
from constitutional_ai.rl_cai.preference_model.train import train_preference_model
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import digest_file
from constitutional_ai.runs.run import Trained, digest_of
from constitutional_ai.runs.runner import Pass
from constitutional_ai.seeding import seed_of
from constitutional_ai.stages.job import Job, sources


def comparisons(job: Job) -> None:
    """Make pairs of the SL-CAI model's answers to red-team prompts (FB-1, FB-2)."""
    setting, prompts = job.recipe.comparisons, job.training_prompts("red_team")

    async def passes() -> AsyncIterator[Pass[tuple[Prompt, int], Comparison]]:
        items = {f"{p.id}.{n}": (p, n) for p in prompts for n in range(setting.per_prompt)}
        with job.loaded(job.trained(layout.SL_CAI_MODEL)) as model:

            async def step(item: tuple[Prompt, int]) -> Comparison:
                prompt, number = item
                return await compare(
                    prompt, number=number, model=model, sampling=setting.sampling, seed=job.recipe.seed
                )

            yield Pass(items, step)

    job.rows(
        layout.COMPARISONS,
        Comparison,
        passes,
        config=job.config("comparisons"),
        inputs={"prompts": digest_of(p.id for p in prompts), **job.made(layout.SL_CAI_MODEL)},
    )


def preference_labels(job: Job) -> None:
    """Label the pairs with the feedback model, under the constitution and after the gate (FB-3 to FB-7)."""

    async def passes() -> AsyncIterator[Pass[Comparison, PreferenceLabel]]:
        with job.loaded(job.recipe.models.feedback) as model:
            step = partial(
                label,
                model=model,
                constitution=job.constitution,
                settings=job.recipe.feedback,
                few_shots=load_few_shots(job.few_shots),
                seed=job.recipe.seed,
            )
            spent = await _pass_the_gate(job, step)
            yield Pass({c.id: c for c in job.run.rows(layout.COMPARISONS, Comparison)}, step, spent)

    job.rows(
        layout.PREFERENCE_LABELS,
        PreferenceLabel,
        passes,
        config=job.config("feedback", "models.feedback") | job.shown_first(),
        inputs={"constitution": job.constitution.digest, **job.made(layout.COMPARISONS)},
    )


async def _pass_the_gate(job: Job, step: Callable[[Comparison], Any]) -> Usage:
    """Put the gate questions to the feedback model, and return the tokens that they cost.

    Raises GateClosed if it is no better than chance (pitfall 27).
    """
    questions = [question.comparison(job.recipe.seed) for question in gate_questions()]
    sides = {comparison.id: side for comparison, side in questions}

    async def answer(comparison: Comparison) -> GateAnswer:
        return GateAnswer(comparison.id, await step(comparison), sides[comparison.id])

    answers = await job.run.make_extra_rows(
        layout.PREFERENCE_LABELS,
        layout.GATE,
        GateAnswer,
        Pass({comparison.id: comparison for comparison, _ in questions}, answer),
        concurrency=job.recipe.concurrency,
        max_failures=job.recipe.max_failures,
    )
    result = gate_result(job.recipe.models.feedback, answers)
    job.say(f"gate: the feedback model gets {result}.")
    if not result.passed:
        warning = (
            "The feedback model is no better than chance on questions whose right answer is clear, so its labels may "
            "be noise. Use a larger models.feedback, or another feedback.method."
        )
        if job.recipe.feedback.gate == "stop":
            raise GateClosed(warning + " To continue all the same: feedback.gate=warn")
        job.say("warning: " + warning)
    costs = [usage(answer) for answer in answers]
    return Usage(sum(c.prompt_tokens for c in costs), sum(c.completion_tokens for c in costs))


def preference_model(job: Job) -> None:
    """Train the preference model on AI harmlessness labels and people's helpfulness comparisons (PM-1 to PM-4)."""
    setting, seed = job.recipe.preference_model, job.recipe.seed
    stage = layout.PREFERENCE_MODEL

    if not preference_model_stage(job):
        return

    def train(folder: Path) -> Trained:
        rows, unusable = labelled_pairs(job, stage)
        rows, notes = job.fitting(stage, rows, "preference_model")
        held_out, rows = training_pairs.held_out(rows, setting.held_out, seed)
        rows, mixture = job.mixed(stage, rows, "preference_model", training_pairs.PEOPLE)
        first = _pretrained(job, folder / layout.PRETRAINING) if setting.pretraining else {}
        if setting.second:
            other, rows = training_pairs.held_out(rows, 0.5, seed_of(seed, "second"))
            _train_once(job, folder / layout.SECOND, other, {**first, "held_out": held_out})
        given = job.given(folder, rows, "preference_model")
        checkpoint = train_preference_model(**given | first, held_out=held_out)
        kept_apart = dict(Counter(row["source"] for row in held_out))
        more = {"sources": dict(sources(rows)), "held_out": kept_apart, "unusable": unusable}
        return Trained(checkpoint, len(rows), notes | mixture | more)

    job.run.make_model(
        stage,
        train,
        config=job.config("preference_model", "models.preference_model", "models.pretrained"),
        inputs={
            **helpfulness_digest(job),
            **({"pretraining": digest_file(Path(setting.pretraining.file))} if setting.pretraining else {}),
            **job.made(layout.PREFERENCE_LABELS),
        },
    )


def _pretrained(job: Job, folder: Path) -> dict[str, Any]:
    """Pretrain the preference model, and return it as the base of the training proper (PM-3)."""
    setting = job.recipe.preference_model.pretraining
    assert setting is not None
    pairs = training_pairs.helpfulness(setting.file, setting.limit, job.recipe.seed, setting.stronger_than)
    if pairs.unusable:
        job.say(f"pretraining: left out of {setting.file}: {format_counts(pairs.unusable)}.")
    rows, _ = job.fitting("pretraining", pairs.rows, "preference_model")
    rates = {"learning_rate": setting.learning_rate, "epochs": setting.epochs}
    _train_once(job, folder, rows, {"training": job.recipe.preference_model.model_copy(update=rates)})
    return {"base": folder / layout.WEIGHTS}


def _train_once(job: Job, folder: Path, rows: list[dict[str, Any]], otherwise: dict[str, Any]) -> None:
    """Train another preference model of the stage, unless it is complete."""
    folder.mkdir(exist_ok=True)
    if not (folder / layout.PREFERENCE_MODEL_REPORT).exists():  # written last, so the model is complete
        train_preference_model(**job.given(folder, rows, "preference_model") | otherwise)


def preference_model_stage(job: Job) -> list[str]:
    """Return the stage of the preference model, or nothing in a run that needs none: with DPO or d-RLAIF."""
    how = job.recipe.rl_cai
    return [layout.PREFERENCE_MODEL] if how.algorithm != "dpo" and how.reward == "preference_model" else []


def helpfulness_digest(job: Job) -> dict[str, str]:
    """Return the digest of people's helpfulness comparisons, as an input of a stage."""
    file = training_pairs.helpfulness_file(job.recipe.preference_model.helpfulness.file)
    return {"helpfulness": digest_file(file)}


def labelled_pairs(job: Job, stage: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return rows of the AI's labels and of people's pairs, and counts of people's that cannot be used, by reason."""
    people = job.recipe.preference_model.helpfulness
    helpful = training_pairs.helpfulness(people.file, people.limit, job.recipe.seed, people.stronger_than)
    if helpful.unusable:
        job.say(f"{stage}: left out of {people.file}: {format_counts(helpful.unusable)}.")
    labels = job.run.rows(layout.PREFERENCE_LABELS, PreferenceLabel)
    return training_pairs.examples(labels) + helpful.rows, dict(helpful.unusable)
