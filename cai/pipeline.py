"""The whole method, stage by stage: the first figure of the paper, from top left to bottom right.

``PIPELINE``, at the foot, is the order. Stages meet only on disk: each reads what earlier ones made and says so in
``inputs``, and no stage calls another.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from cai.constitution import load_constitution
from cai.errors import GateClosed, InputError
from cai.evaluation import harm
from cai.job import KINDS, Job, loaded
from cai.recipe import Recipe
from cai.records import (
    Answer,
    Comparison,
    GateAnswer,
    Message,
    PreferenceLabel,
    Prompt,
    Response,
    RevisionChain,
)
from cai.rl_cai import compare, gate, label, preference_model, reinforce
from cai.runs.rows import digest_file, write_whole
from cai.runs.run import Run, Trained, digest_of, open_run
from cai.runs.stage import Pass, Progress
from cai.seeding import seed_of
from cai.sl_cai import finetune, red_team, respond, revise

START, SL_CAI, RL_CAI = "start", "sl-cai", "rl-cai"


def responses(job: Job) -> None:
    """Prompts → the helpful model's answers: one to a red-team prompt, some to a helpful one (SL-5, SL-16)."""
    setting, seed = job.recipe.responses, job.recipe.seed

    async def passes() -> AsyncIterator[Pass[tuple[Prompt, int], Response]]:
        items = {f"{p.id}.0": (p, 0) for p in job.training_prompts("red_team")}
        for p in job.training_prompts("helpful", "borderline"):
            items |= {f"{p.id}.{n}": (p, n) for n in range(setting.per_helpful_prompt)}
        with loaded(job.recipe.models.helpful) as model:

            async def step(item: tuple[Prompt, int]) -> Response:
                prompt, number = item
                return await respond.respond(
                    prompt, number=number, model=model, sampling=setting.sampling, seed=seed
                )

            yield Pass(items, step)

    used = job.training_prompts(*KINDS)
    job.rows(
        "01-responses",
        Response,
        passes,
        config=job.config("responses", "models.helpful"),
        inputs={"prompts": digest_of(p.id for p in used)},
    )


def revisions(job: Job) -> None:
    """Red-team responses → critiques and revisions under the constitution (SL-6 to SL-9)."""
    setting = job.recipe.revisions

    async def passes() -> AsyncIterator[Pass[Response, RevisionChain]]:
        initial = [r for r in job.run.rows("01-responses", Response) if r.prompt.kind == "red_team"]
        with loaded(job.recipe.models.helpful) as model:
            step = partial(
                revise.revise,
                model=model,
                constitution=job.constitution,
                rounds=setting.rounds,
                style=setting.style,
                sampling=setting.sampling,
                seed=job.recipe.seed,
            )
            yield Pass({r.id: r for r in initial}, step)

    job.rows(
        "02-revisions",
        RevisionChain,
        passes,
        config=job.config("revisions", "models.helpful"),
        inputs={"constitution": job.constitution.digest, **job.made("01-responses")},
    )


def sl_cai_model(job: Job) -> None:
    """Revisions and helpful answers → the SL-CAI model (SL-15 to SL-19)."""

    def train(folder: Path) -> Trained:
        chains = job.run.rows("02-revisions", RevisionChain)
        helpful = [r for r in job.run.rows("01-responses", Response) if r.prompt.kind != "red_team"]
        rows = finetune.examples(chains, helpful)
        given, notes = job.training(folder, rows, "sl_cai")
        return Trained(finetune.finetune(**given), len(given["rows"]), notes)

    job.run.make_model(
        "03-sl-cai-model",
        train,
        config=job.config("sl_cai", "models.pretrained"),
        inputs=job.made("01-responses", "02-revisions"),
    )


def comparisons(job: Job) -> None:
    """Red-team prompts → pairs of the SL-CAI model's answers (FB-1, FB-2)."""
    setting = job.recipe.comparisons

    async def passes() -> AsyncIterator[Pass[tuple[Prompt, int], Comparison]]:
        prompts = job.training_prompts("red_team")
        items = {f"{p.id}.{n}": (p, n) for p in prompts for n in range(setting.per_prompt)}
        with loaded(job.trained("03-sl-cai-model")) as model:

            async def step(item: tuple[Prompt, int]) -> Comparison:
                prompt, number = item
                return await compare.compare(
                    prompt, number=number, model=model, sampling=setting.sampling, seed=job.recipe.seed
                )

            yield Pass(items, step)

    used = job.training_prompts("red_team")
    job.rows(
        "04-comparisons",
        Comparison,
        passes,
        config=job.config("comparisons"),
        inputs={"prompts": digest_of(p.id for p in used), **job.made("03-sl-cai-model")},
    )


def preference_labels(job: Job) -> None:
    """Pairs → the feedback model's soft labels under the constitution, after the gate (FB-3 to FB-7)."""
    setting = job.recipe.feedback

    async def passes() -> AsyncIterator[Pass[Comparison, PreferenceLabel]]:
        with loaded(job.recipe.models.feedback) as model:
            step = partial(
                label.label,
                model=model,
                constitution=job.constitution,
                asking=setting.asking(model.format),
                seed=job.recipe.seed,
            )
            await pass_the_gate(job, step)
            yield Pass({c.id: c for c in job.run.rows("04-comparisons", Comparison)}, step)

    job.rows(
        "05-preference-labels",
        PreferenceLabel,
        passes,
        config=job.config("feedback", "models.feedback"),
        inputs={"constitution": job.constitution.digest, **job.made("04-comparisons")},
    )


async def pass_the_gate(job: Job, step: Callable[[Comparison], Any]) -> None:
    """Puts the gate questions to the feedback model. Raises GateClosed if it is no better than chance (pitfall 27)."""
    asked = [gate.comparison_of(question, job.recipe.seed) for question in gate.questions()]
    sides = {comparison.id: side for comparison, side in asked}

    async def answer(comparison: Comparison) -> GateAnswer:
        return gate.answer_of(await step(comparison), sides[comparison.id])

    answers = await job.run.side_rows(
        "05-preference-labels",
        "gate.jsonl",
        GateAnswer,
        Pass({comparison.id: comparison for comparison, _ in asked}, answer),
        concurrency=job.recipe.concurrency,
        max_failures=job.recipe.max_failures,
    )
    result = gate.gate_result(job.recipe.models.feedback, answers)
    job.say(f"gate: the feedback model gets {result}.")
    if not result.passed:
        warning = (
            "The feedback model is no better than chance on questions whose right answer is clear, so its labels may "
            "be noise. Use a larger models.feedback, or another feedback.method."
        )
        if job.recipe.feedback.gate == "stop":
            raise GateClosed(warning + " To go on all the same: feedback.gate=warn")
        job.say("warning: " + warning)


def the_preference_model(job: Job) -> None:
    """AI harmlessness labels and people's helpfulness comparisons → the preference model (PM-1 to PM-4)."""
    setting = job.recipe.preference_model

    def train(folder: Path) -> Trained:
        rows = preference_model.examples(job.run.rows("05-preference-labels", PreferenceLabel))
        rows += preference_model.helpfulness(
            setting.helpfulness.file, setting.helpfulness.limit, job.recipe.seed
        )
        given, notes = job.training(folder, rows, "preference_model")
        return Trained(preference_model.train(**given), len(given["rows"]), notes)

    file = preference_model.helpfulness_file(setting.helpfulness.file)
    job.run.make_model(
        "06-preference-model",
        train,
        config=job.config("preference_model", "models.pretrained"),
        inputs={"helpfulness": digest_file(file) if file else "none", **job.made("05-preference-labels")},
    )


def rl_cai_model(job: Job) -> None:
    """The SL-CAI model, rewarded by the preference model → the RL-CAI model (RL-1 to RL-5)."""
    setting = job.recipe.rl_cai

    def train(folder: Path) -> Trained:
        prompts = red_team.some(job.training_prompts(*KINDS), setting.prompts, job.recipe.seed)
        given, notes = job.training(folder, reinforce.examples(prompts), "rl_cai")
        given |= {"base": job.weights("03-sl-cai-model"), "base_name": SL_CAI}
        checkpoint = reinforce.reinforce(
            **given,
            preference_model=preference_model.PreferenceModel(job.weights("06-preference-model")),
            kl_weight=setting.kl_weight,
            answers=setting.answers,
            temperature=setting.temperature,
            max_tokens=setting.max_tokens,
        )
        return Trained(checkpoint, len(given["rows"]), notes)

    used = job.training_prompts(*KINDS)
    job.run.make_model(
        "07-rl-cai-model",
        train,
        config=job.config("rl_cai"),
        inputs={
            "prompts": digest_of(p.id for p in used),
            **job.made("03-sl-cai-model", "06-preference-model"),
        },
    )


def evaluation(job: Job) -> None:
    """Held-out prompts → every model's answers, verdicts and rates."""
    setting, seed = job.recipe.evaluation, job.recipe.seed
    prompts = [
        prompt
        for kind in KINDS
        for prompt in red_team.some(job.prompts[kind].held_out, getattr(setting, kind), seed)
    ]
    models = {
        START: job.recipe.models.helpful,
        SL_CAI: job.trained("03-sl-cai-model"),
        RL_CAI: job.trained("07-rl-cai-model"),
    }

    async def passes() -> AsyncIterator[Pass[Prompt, Answer]]:
        rewards = preference_model.PreferenceModel(job.weights("06-preference-model"))
        for role, name in models.items():
            with loaded(name) as model:

                async def step(prompt: Prompt, model: Any = model, role: str = role) -> Answer:
                    # Not `respond`: a model that says nothing is measured here, not passed over.
                    draw = replace(setting.sampling, seed=seed_of(seed, "evaluate", prompt.id))
                    response = Response(
                        f"{prompt.id}.0", prompt, await model.generate(prompt.conversation, draw)
                    )
                    reward = await rewards.reward((*prompt.conversation, Message("assistant", response.text)))
                    return Answer(f"{prompt.id}.{role}", role, response, harm.verdict(response), reward)

                yield Pass({f"{p.id}.{role}": p for p in prompts}, step)
        # Before stage.json: a complete stage has its metrics.
        write_metrics(job.run, list(models))

    job.rows(
        "08-evaluation",
        Answer,
        passes,
        config=job.config("evaluation", "models.helpful"),
        inputs={
            "prompts": digest_of(p.id for p in prompts),
            **job.made("03-sl-cai-model", "06-preference-model", "07-rl-cai-model"),
        },
    )


def write_metrics(run: Run, models: list[str]) -> None:
    metrics = harm.metrics(run.rows("08-evaluation", Answer), models)
    text = json.dumps([asdict(m) for m in metrics], indent=1) + "\n"
    write_whole(run.stage("08-evaluation") / "metrics.json", text)


PIPELINE: dict[str, Callable[[Job], None]] = {
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
    constitution = load_constitution(recipe.constitution)
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
    preference_model.helpfulness(recipe.preference_model.helpfulness.file, 1, 0)  # a bad file says so now
    texts = {"recipe.yaml": recipe.to_yaml(), "constitution.yaml": constitution.to_yaml()}
    with open_run(Path(recipe.out), texts, progress) as run:
        job = Job(run, recipe, constitution, prompts, say)
        for stage, make in PIPELINE.items():
            if stage == redo:  # only now: what comes before has been checked
                run.forget(*list(PIPELINE)[list(PIPELINE).index(redo) :])  # later ones are made from its output
            make(job)
            if stage == until:
                break
        return run
