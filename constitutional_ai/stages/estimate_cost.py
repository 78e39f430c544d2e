"""What a run will cost, before it: calls, tokens, and where somebody has measured or priced them, time and money.

The steps themselves are rehearsed (``rehearsal.py``), so that every call is counted where it is made. Answers there are
as long as they may be: tokens written are the most there can be. Time comes from the models (``measure``) or from an
earlier run (``like``), or is not known.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.data.prompts import KINDS, load_prompts, sample_prompts
from constitutional_ai.errors import RecordError
from constitutional_ai.models.load import LOCAL_SCHEMES, loaded
from constitutional_ai.models.model import Model
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Prompt
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.rl_cai.preference_model import training_pairs
from constitutional_ai.rl_cai.reinforcement.feedback_reward import calls_per_answer
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible
from constitutional_ai.stages.feedback import comparisons, preference_labels
from constitutional_ai.stages.rehearsal import AT_ONCE, LETTERS, Nowhere, Rehearsal, Rehearsed
from constitutional_ai.stages.supervised import drafts, responses, revisions

TRAININGS = {
    layout.SL_CAI_MODEL: "sl_cai",
    layout.PREFERENCE_MODEL: "preference_model",
    layout.RL_CAI_MODEL: "rl_cai",
}


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens that a server reads, and writes; in whatever currency."""

    read: float
    written: float


@dataclass(frozen=True, slots=True)
class Estimate:
    stage: str
    model: str | None
    """Who is asked; None in a training that asks nobody."""
    records: int
    calls: int
    read: int | None
    """Tokens; None in a training, which is counted in hours only."""
    written: int | None
    """Tokens at most, or as in the earlier run."""
    seconds: float | None
    """None where nobody has measured it."""
    cost: float | None
    """None without prices. What runs on this machine costs no tokens."""
    notes: tuple[str, ...] = ()
    """How far its figures can be trusted."""


def estimate(
    recipe: Recipe, *, prices: Prices | None = None, measure: bool = False, like: Path | None = None
) -> list[Estimate]:
    """Every stage of a recipe. ``measure`` loads and asks its models; ``like`` is a run to take times from.

    Raises InputError when ``like`` is no run, or a file that the recipe names cannot be read.
    """
    job = rehearsal(recipe)
    earlier = read_run(like) if like else None
    made: list[Estimate] = []
    for stage, (make, name) in {
        layout.PROMPTS: (drafts, recipe.models.prompts),
        layout.RESPONSES: (responses, recipe.models.helpful),
        layout.REVISIONS: (revisions, recipe.models.helpful),
        layout.COMPARISONS: (comparisons, recipe.models.pretrained),
        layout.PREFERENCE_LABELS: (preference_labels, recipe.models.feedback),
    }.items():
        before = len(job.asked)
        make(job)
        made += [_of(stage, name, len(job.run.rows(stage, Prompt)), model) for model in job.asked[before:]]
    made += [
        _trained(job, stage)
        for stage in TRAININGS
        if stage != layout.PREFERENCE_MODEL or job.preference_model_stages
    ]
    made += [_evaluated(job)]
    measured = _measured(job, made) if measure else {}
    method = METHODS[recipe.feedback.method]
    scored = {layout.PREFERENCE_LABELS} if method.needs_scores and method.samples_text else set()
    timed = [_timed(one, measured, earlier, scored) for one in made]
    return [_priced(one, prices) for one in sorted(timed, key=lambda e: e.stage)]


def rehearsal(recipe: Recipe) -> Rehearsal:
    # What is only a matter of the answers must not stop the rehearsal.
    feedback = recipe.feedback.model_copy(update={"gate": "warn"})
    constitution = apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    prompts = {kind: load_prompts(getattr(recipe.prompts, kind).file, kind) for kind in KINDS}
    run = Nowhere(Path(recipe.out).resolve())
    return Rehearsal(
        run, recipe.model_copy(update={"feedback": feedback}), constitution, prompts, lambda said: None
    )


def _of(stage: str, name: str, records: int, model: Rehearsed) -> Estimate:
    notes = () if model.exact else (f"tokens of {name} counted as {LETTERS} letters each",)
    return Estimate(stage, name, records, model.calls, model.read, model.written, None, None, notes)


def _evaluated(job: Rehearsal) -> Estimate:
    """Every model answers every held-out prompt once."""
    setting, stage = job.recipe.evaluation, layout.EVALUATION
    prompts = [
        p
        for kind in KINDS
        for p in sample_prompts(job.prompts[kind].held_out, getattr(setting, kind), job.recipe.seed)
    ]
    models = 3 + (_snapshots(job) if setting.snapshots else 0)

    async def ask(model: Model) -> None:
        for prompt in prompts:
            await model.generate(prompt.conversation, setting.sampling)

    with job.loaded(job.recipe.models.helpful) as model:
        asyncio.run(ask(model))
    one = _of(stage, job.recipe.models.helpful, len(prompts), job.asked[-1])
    return replace(
        one,
        records=models * one.records,
        calls=models * one.calls,
        read=models * (one.read or 0),
        written=models * (one.written or 0),
    )


def _rl_prompts(job: Rehearsal) -> int:
    setting = job.recipe.rl_cai
    found = len(job.training_prompts(*KINDS))
    return int(min(found, setting.prompts or found) * setting.epochs)


def _snapshots(job: Rehearsal) -> int:
    """As ``training/snapshots.py`` saves them."""
    setting = job.recipe.rl_cai
    if setting.snapshot_every is None:
        return 0
    batch, every = setting.batch_size // setting.answers, setting.snapshot_every
    seen = range(batch, _rl_prompts(job) + 1, batch)
    return sum(n // every > (n - batch) // every for n in seen)


def _trained(job: Rehearsal, stage: str) -> Estimate:
    """A training. Its rows are at most these: what is too long, or repeats itself, is left out."""
    recipe, run = job.recipe, job.run
    pairs = len(run.rows(layout.PREFERENCE_LABELS, Prompt))
    people = recipe.preference_model.helpfulness
    helped = training_pairs.helpfulness(people.file, people.limit, recipe.seed).rows
    if stage == layout.SL_CAI_MODEL:
        helpful = len(run.rows(layout.RESPONSES, Prompt)) - len(run.rows(layout.REVISIONS, Prompt))
        rows = (
            len(run.rows(layout.REVISIONS, Prompt)) * (recipe.sl_cai.rounds or recipe.revisions.rounds)
            + helpful
        )
    elif stage == layout.PREFERENCE_MODEL or not recipe.rl_cai.method.samples:
        rows = pairs + len(helped)
    else:
        rows = min(len(job.training_prompts(*KINDS)), recipe.rl_cai.prompts or sys.maxsize)
    calls, judge = 0, None
    if stage == layout.RL_CAI_MODEL and recipe.rl_cai.reward == "feedback":
        judge = recipe.models.feedback
        calls = _rl_prompts(job) * recipe.rl_cai.answers * calls_per_answer(recipe.feedback)
    return Estimate(stage, judge, rows, calls, None, None, None, None)


# -- time and money


def _measured(job: Rehearsal, made: Sequence[Estimate]) -> dict[str, float]:
    """Seconds a call, by stage: its own first requests, put to its model at once."""
    found: dict[str, float] = {}
    samples = dict(zip([e.stage for e in made if e.read is not None], job.asked, strict=True))
    for name in dict.fromkeys(model.name for model in samples.values()):
        with loaded(name) as model:
            asyncio.run(_answer(model, next(m for m in samples.values() if m.name == name).sample[:1]))
            for stage, sampled in samples.items():
                if sampled.name == name and sampled.sample:
                    began = time.monotonic()
                    asyncio.run(_answer(model, sampled.sample))
                    found[stage] = (time.monotonic() - began) / len(sampled.sample)
    return found


async def _answer(model: Model, sample: Sequence[Callable[[Model], Any]]) -> None:
    said = await asyncio.gather(*[ask(model) for ask in sample], return_exceptions=True)
    for error in said:
        if isinstance(error, BaseException) and not isinstance(error, RecordError):
            raise error


def _timed(one: Estimate, measured: dict[str, float], earlier: Run | None, scored: set[str]) -> Estimate:
    """``scored`` are stages that score besides what they sample: scores leave no tokens in a stage's records."""
    then = earlier.manifest(one.stage) if earlier else None
    if then is not None and then.records:
        share, source = one.records / then.records, f"as in {earlier.folder}" if earlier else ""
        read, written = one.read, one.written
        if then.completion_tokens and one.read is not None:  # else it only scored
            written = round(then.completion_tokens * share)
            read = one.read if one.stage in scored else round(then.prompt_tokens * share)
        notes = (*one.notes, f"time and tokens {source}, {then.records} records")
        return replace(one, read=read, written=written, seconds=then.seconds * share, notes=notes)
    if one.stage in measured:
        note = f"time measured on {min(AT_ONCE, one.calls)} calls at once, with answers of any length"
        return replace(one, seconds=measured[one.stage] * one.calls, notes=(*one.notes, note))
    return one


def _priced(one: Estimate, prices: Prices | None) -> Estimate:
    if prices is None or one.model is None or one.read is None:
        return one
    if one.model.startswith((*LOCAL_SCHEMES, "scripted:")):
        return replace(one, cost=0.0)
    return replace(one, cost=(one.read * prices.read + (one.written or 0) * prices.written) / 1e6)


# -- for people and programs


def write(path: Path, made: Sequence[Estimate]) -> None:
    write_atomically(path, json.dumps([asdict(one) for one in made], indent=1, ensure_ascii=False) + "\n")


def table(made: Sequence[Estimate]) -> Group:
    """A line a stage, and their sum; a sum with an unknown part is unknown."""
    shown = Table("stage", *("records", "calls", "tokens read", "written at most", "time", "cost"), box=None)
    shown.columns[0].no_wrap = True
    for column in shown.columns[1:]:
        column.justify = "right"
    for one in made:
        shown.add_row(one.stage, f"{one.records:,}", *_figures([one]))
    shown.add_row("all", "", *_figures(made), style="bold")
    notes = dict.fromkeys(f"{one.stage}: {note}" for one in made for note in one.notes)
    return Group(shown, *[Text(visible(note), style="dim") for note in notes])


def _figures(made: Sequence[Estimate]) -> list[str]:
    asked = [one for one in made if one.read is not None]
    times, costs = [one.seconds for one in made], [one.cost for one in asked]
    return [
        f"{sum(one.calls for one in made):,}",
        f"{sum(one.read or 0 for one in asked):,}" if asked else "–",
        f"{sum(one.written or 0 for one in asked):,}" if asked else "–",
        "not known" if None in times else _duration(sum(t or 0 for t in times)),
        "–" if not costs or None in costs else f"{sum(c or 0 for c in costs):,.2f}",
    ]


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
