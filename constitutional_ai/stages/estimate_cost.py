"""Estimate what a run will cost: calls and tokens, and time and money where they are known.

The stages are rehearsed (``rehearsal.py``), so every call is counted where it is made. Answers are taken to be as long
as they may be, so tokens written are an upper limit. Time comes from measuring the models, or from an earlier run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.data.prompts import KINDS, load_prompts
from constitutional_ai.errors import RecordError
from constitutional_ai.models.load import loaded
from constitutional_ai.models.model import Model
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.rl_cai.reinforcement.feedback_reward import calls_per_answer
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible
from constitutional_ai.stages.job import Job
from constitutional_ai.stages.rehearsal import LETTERS, SAMPLE, CountingModel, Rehearsal, UnstoredRun

Stages = Mapping[str, Callable[[Job], None]]


@dataclass(frozen=True, slots=True)
class Prices:
    """The price of a million tokens that a server reads, and of a million that it writes, in any currency."""

    read: float
    written: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected cost of one stage."""

    stage: str
    model: str | None
    """The models that are called; None in a training that calls none."""
    records: int
    """Records, or rows of a training."""
    calls: int
    read: int | None
    """Tokens; None in a training, which is counted in hours only."""
    written: int | None
    """Tokens at most, or as many as in the earlier run."""
    seconds: float | None
    """None unless measured."""
    cost: float | None
    """None without prices. Local models cost nothing."""
    notes: tuple[str, ...] = ()
    """How reliable the figures are."""


def estimate(
    recipe: Recipe,
    stages: Stages,
    *,
    prices: Prices | None = None,
    measure: bool = False,
    like: Path | None = None,
) -> list[Estimate]:
    """Estimate every stage of a recipe, in the order of ``stages``.

    ``measure`` loads and calls its models; ``like`` is a run to take times from. Raises InputError when ``like`` is no
    run, or when a file of the recipe cannot be read.
    """
    job = rehearsal(recipe)
    earlier = read_run(like) if like else None
    estimates = []
    for stage, make in stages.items():
        before = len(job.models)
        make(job)
        if stage in job.run.sizes:
            models = job.models[before:]
            one = _sampling(job, stage, models) if models else _training(job, stage)
            if earlier and earlier.manifest(stage):
                one = _as_in(earlier, one, scores=any(model.scores for model in models))
            elif measure and models:
                note = f"time measured on {min(SAMPLE, one.calls)} calls at once, with answers of any length"
                one = replace(one, seconds=sum(map(_seconds, models)), notes=(*one.notes, note))
            estimates.append(_priced(one, models, prices) if prices and models else one)
    return estimates


def rehearsal(recipe: Recipe) -> Rehearsal:
    """Return a job that counts what the recipe would do. Raises InputError when a file cannot be read."""
    # Filler fails the gate's questions, which must not stop the rehearsal.
    feedback = recipe.feedback.model_copy(update={"gate": "warn"})
    constitution = apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    prompts = {kind: load_prompts(getattr(recipe.prompts, kind).file, kind) for kind in KINDS}
    rl = recipe.rl_cai
    every = max(rl.snapshot_every, rl.prompts_per_batch) / rl.epochs if rl.snapshot_every else float("inf")
    run = UnstoredRun(Path(recipe.out).resolve(), prompts_per_snapshot=every)
    return Rehearsal(
        run, recipe.model_copy(update={"feedback": feedback}), constitution, prompts, lambda text: None
    )


def _sampling(job: Rehearsal, stage: str, models: Sequence[CountingModel]) -> Estimate:
    return Estimate(
        stage,
        ", ".join(dict.fromkeys(model.name for model in models)),
        job.run.sizes[stage],
        sum(model.calls for model in models),
        sum(model.read for model in models),
        sum(model.written for model in models),
        None,
        None,
        (f"tokens counted as {LETTERS} letters each",),
    )


def _training(job: Rehearsal, stage: str) -> Estimate:
    """Estimate a training. Its rows are at most these, because longer ones are left out."""
    rows, setting = job.run.sizes[stage], job.recipe.rl_cai
    judge, calls = None, 0
    if stage == layout.RL_CAI_MODEL and setting.reward == "feedback":
        judge = job.recipe.models.feedback
        calls = int(rows * setting.epochs) * setting.answers * calls_per_answer(job.recipe.feedback)
    return Estimate(stage, judge, rows, calls, None, None, None, None)


def _priced(one: Estimate, models: Sequence[CountingModel], prices: Prices) -> Estimate:
    """Return the estimate with the price of the tokens of servers."""
    servers = [model for model in models if not model.local]
    read = (one.read or 0) * sum(m.read for m in servers) / max(1, sum(m.read for m in models))
    written = (one.written or 0) * sum(m.written for m in servers) / max(1, sum(m.written for m in models))
    return replace(one, cost=(read * prices.read + written * prices.written) / 1e6)


def _as_in(earlier: Run, one: Estimate, *, scores: bool) -> Estimate:
    """Return the estimate with time and tokens of a finished stage, scaled by the number of records.

    A stage's records hold no tokens of scores, so those that were read are scaled only where nothing was scored.
    """
    then = earlier.manifest(one.stage)
    if then is None or not then.records:
        return one
    share, read, written = one.records / then.records, one.read, one.written
    if then.completion_tokens and one.read is not None:
        written = round(then.completion_tokens * share)
        read = one.read if scores else round(then.prompt_tokens * share)
    note = f"time and tokens as in {earlier.folder}, {then.records} records"
    return replace(one, read=read, written=written, seconds=then.seconds * share, notes=(*one.notes, note))


def _seconds(counted: CountingModel) -> float:
    """Return the expected seconds of all calls, measured on the first of them, which are made at once."""

    async def call(model: Model, sample: Sequence[Callable[[Model], Any]]) -> None:
        for result in await asyncio.gather(*[ask(model) for ask in sample], return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, RecordError):
                raise result

    if not counted.sample:
        return 0.0
    with loaded(counted.name) as model:
        asyncio.run(call(model, counted.sample[:1]))  # the first call is slower
        start = time.monotonic()
        asyncio.run(call(model, counted.sample))
        return (time.monotonic() - start) / len(counted.sample) * counted.calls


# -- output


def write(path: Path, estimates: Sequence[Estimate]) -> None:
    write_atomically(path, json.dumps([asdict(one) for one in estimates], indent=1, ensure_ascii=False) + "\n")


def table(estimates: Sequence[Estimate]) -> Group:
    """Return a table of the stages and their sum; a sum with an unknown part is unknown."""
    shown = Table("stage", *("records", "calls", "tokens read", "written at most", "time", "cost"), box=None)
    shown.columns[0].no_wrap = True
    for column in shown.columns[1:]:
        column.justify = "right"
    for one in estimates:
        shown.add_row(one.stage, f"{one.records:,}", *_figures([one]))
    shown.add_row("all", "", *_figures(estimates), style="bold")
    notes = dict.fromkeys(note for one in estimates for note in one.notes)
    return Group(shown, *[Text(visible(note), style="dim") for note in notes])


def _figures(estimates: Sequence[Estimate]) -> list[str]:
    sampling = [one for one in estimates if one.read is not None]
    times, costs = [one.seconds for one in estimates], [one.cost for one in sampling]
    return [
        f"{sum(one.calls for one in estimates):,}",
        f"{sum(one.read or 0 for one in sampling):,}" if sampling else "–",
        f"{sum(one.written or 0 for one in sampling):,}" if sampling else "–",
        "not known" if None in times else _duration(sum(t or 0 for t in times)),
        "–" if not costs or None in costs else f"{sum(c or 0 for c in costs):,.2f}",
    ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
