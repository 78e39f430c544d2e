"""The supervised stages: prompts, responses, revisions and the SL-CAI model (section 3; SL-1 to SL-19)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from functools import partial
from pathlib import Path
from typing import Any

from constitutional_ai.data.prompts import KINDS, sample_prompts
from constitutional_ai.records import Draft, Kind, Prompt, Response, RevisionChain
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.runs.run import Trained, digest_of
from constitutional_ai.runs.runner import Pass
from constitutional_ai.sl_cai import clean, draft_prompts
from constitutional_ai.sl_cai.finetune import HELPFUL, examples, finetune
from constitutional_ai.sl_cai.respond import respond
from constitutional_ai.sl_cai.revise import revise
from constitutional_ai.sl_cai.worked_critiques import critique_revision
from constitutional_ai.stages.calls import call_others
from constitutional_ai.stages.job import Job


def drafts(job: Job) -> None:
    """Draft more training prompts with a pretrained model, and sift them (SL-3), if the recipe wants any."""
    if not job.drafts_wanted:
        return
    setting, recipe, stage = job.recipe.generation, job.recipe, layout.PROMPTS
    train = [p for file in job.prompts.values() for p in file.train]
    held_out = [p for file in job.prompts.values() for p in file.held_out]
    shown = {
        kind: draft_prompts.seed_prompts(job.prompts[kind].train, kind, setting.shots)
        for kind in job.drafts_wanted
    }

    async def passes() -> AsyncIterator[Pass[tuple[Kind, int], Draft]]:
        async with job.loaded_in_loop(recipe.models.prompts, stage) as model:
            how: Any = {"model": model, "settings": setting, "seed": recipe.seed}
            items = {
                f"{kind}.{n}": (kind, n) for kind, count in job.drafts_wanted.items() for n in range(count)
            }
            yield Pass(items, lambda item: draft_prompts.draft(*item, seeds=shown[item[0]], **how))

    def notes(drafted: Collection[Draft]) -> dict[str, Any]:
        sifted = draft_prompts.sift(drafted, train, held_out)
        write_rows(job.run.stage(stage) / layout.DRAFTED, Prompt, sifted.kept)
        for kind, counts in sifted.counts.items():
            job.notify(f"{stage}: of the {kind} drafts, {draft_prompts.in_words(counts)}.")
        return {"drafts": {kind: dict(counts) for kind, counts in sifted.counts.items()}}

    job.make_rows(
        stage,
        Draft,
        passes,
        config=job.config("generation", "models.prompts", *[f"prompts.{kind}.generate" for kind in KINDS]),
        inputs={"prompts": digest_of(p.id for p in train), "held_out": digest_of(p.id for p in held_out)},
        notes=notes,
    )


def responses(job: Job) -> None:
    """Sample the helpful model's responses: one to each red-team prompt, several to others (SL-5, SL-16)."""
    setting, seed = job.recipe.responses, job.recipe.seed

    async def passes() -> AsyncIterator[Pass[tuple[Prompt, int], Response]]:
        items = {f"{p.id}.0": (p, 0) for p in job.training_prompts("red_team")}
        for p in job.training_prompts("helpful", "borderline"):
            items |= {f"{p.id}.{n}": (p, n) for n in range(setting.per_helpful_prompt)}
        async with job.loaded_in_loop(job.recipe.models.helpful, layout.RESPONSES) as model:
            how: Any = {"model": model, "sampling": setting.sampling, "seed": seed}
            yield Pass(items, lambda item: respond(*item, **how))

    used = job.training_prompts(*KINDS)
    job.make_rows(
        layout.RESPONSES,
        Response,
        passes,
        config=job.config("responses", "models.helpful"),
        inputs={"prompts": digest_of(p.id for p in used)},
        still_fits=lambda: True,  # an answer depends on its own prompt only
    )


def revisions(job: Job) -> None:
    """Criticise and revise the responses to red-team prompts under the constitution (SL-6 to SL-9).

    Where ``revisions.harmless`` says so, one response to each of some harmless prompts is revised, too.
    """
    setting = job.recipe.revisions
    if not job.in_recipe(layout.REVISIONS):
        return

    async def passes() -> AsyncIterator[Pass[Response, RevisionChain]]:
        prompts = job.training_prompts("helpful", "borderline")
        harmless = {f"{p.id}.0" for p in sample_prompts(prompts, setting.harmless, job.recipe.seed)}
        initial = [
            response
            for response in job.run.rows(layout.RESPONSES, Response)
            if response.prompt.kind == "red_team" or response.id in harmless
        ]
        async with job.loaded_in_loop(job.recipe.models.helpful, layout.REVISIONS) as model:
            step = partial(
                revise,
                model=model,
                constitution=job.constitution,
                settings=setting,
                seed=job.recipe.seed,
                few_shots=critique_revision(job.few_shots) if job.few_shots else "",
            )
            yield Pass({r.id: r for r in initial}, step)

    def notes(chains: Collection[RevisionChain]) -> dict[str, Any]:
        counts = clean.hits(chains)
        if counts:
            job.notify(f"{layout.REVISIONS}: {clean.in_words(chains)}.")
        return {"cleaned": {rule: counts[rule] for rule in setting.clean}}

    job.make_rows(
        layout.REVISIONS,
        RevisionChain,
        passes,
        config=job.config("revisions", "models.helpful") | job.few_shots_digest(),
        inputs={"constitution": job.constitution.digest, **job.outputs(layout.RESPONSES)},
        notes=notes,
        still_fits=lambda: job.is_from(
            layout.REVISIONS, RevisionChain, lambda chain: chain.initial, layout.RESPONSES, Response
        ),
    )


def sl_cai_model(job: Job) -> None:
    """Finetune the SL-CAI model on revisions and helpful responses (SL-15 to SL-19)."""

    def train(folder: Path) -> Trained:
        chains = job.run.rows(layout.REVISIONS, RevisionChain)
        helpful = [r for r in job.run.rows(layout.RESPONSES, Response) if r.prompt.kind != "red_team"]
        rows = examples(chains, helpful, job.recipe.sl_cai.rounds)
        rows, notes = job.usable_rows(folder.name, rows, "sl_cai")
        rows, mixture = job.mix_rows(folder.name, rows, "sl_cai", HELPFUL)
        training = job.training_job(folder, rows, "sl_cai")
        call_others("sl_cai", job.recipe, job.run.folder, training)
        return Trained(finetune(training), len(rows), notes | mixture)

    job.make_model(
        layout.SL_CAI_MODEL,
        train,
        config=job.config("sl_cai", "models.pretrained"),
        inputs=job.outputs(*job.in_recipe(layout.RESPONSES, layout.REVISIONS)),
    )
