"""Estimate what a run will cost: calls and tokens, and time and money where they are known.

The stages are rehearsed: they run with models that write filler and count their calls, in a run that stores nothing.
Answers are assumed to have the maximum length, so tokens written are an upper limit. Time is measured on the models, or
taken from an earlier run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.data.prompts import KINDS, load_prompts
from constitutional_ai.errors import RecordError
from constitutional_ai.models.load import LOCAL_SCHEMES, loaded
from constitutional_ai.models.model import Context, Format, Model, Sampling, plain
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Completion, Kind, Message, Prompt
from constitutional_ai.rl_cai.reinforcement.feedback_reward import calls_per_answer
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.run import Run, Trained
from constitutional_ai.runs.runner import Pass
from constitutional_ai.safe_text import visible
from constitutional_ai.stages.job import Job, Notes, Row, Rows
from constitutional_ai.training.settings import TrainingJob

LETTERS = 4
"""Letters counted as one token. Servers publish no tokenizer, and tokens of local models cost nothing."""
WORDS = 0.75
"""Words of filler in one token."""
FILLERS = 64
"""Number of different filler texts. Records share them, because there may be a million records."""
SAMPLE = 32
"""Number of a stage's requests that are kept, to measure the model's speed on them."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected cost of one stage."""

    stage: str
    model: str | None
    """The models that are called; None in a training that calls none."""
    records: int
    """Records, or rows of a training."""
    calls: int
    read: int | None = None
    """Tokens; None in a training, whose cost is only time."""
    written: int | None = None
    """Tokens: an upper limit, or scaled from the earlier run."""
    seconds: float | None = None
    """None unless measured."""
    cost: float | None = None
    """None without prices. Local models cost nothing."""
    notes: tuple[str, ...] = ()
    """How reliable the figures are."""


def estimate(
    recipe: Recipe,
    stages: Mapping[str, Callable[[Job], None]],
    *,
    prices: tuple[float, float] | None = None,
    measure: bool = False,
    like: Path | None = None,
) -> list[Estimate]:
    """Estimate every stage of a recipe, in the order of ``stages``.

    ``prices`` are those of a million tokens that a server reads, and of a million that it writes, in any currency.
    ``measure`` loads and calls the recipe's models; ``like`` is a run to take times from. Raises InputError when
    ``like`` is no run, or when a file of the recipe cannot be read.
    """
    job = rehearsal(recipe)
    earlier = read_run(like) if like else None
    estimates = []
    for stage, make in stages.items():
        job.models.clear()
        make(job)
        if stage in job.run.sizes:
            one = _sampling(job, stage) if job.models else _training(job, stage)
            if earlier and earlier.manifest(stage):
                one = _as_in(earlier, one, scores=any(model.scores for model in job.models))
            elif measure and job.models:
                note = f"time measured on {min(SAMPLE, one.calls)} calls at once, with answers of any length"
                one = replace(one, seconds=sum(map(_seconds, job.models)), notes=(*one.notes, note))
            estimates.append(_priced(one, job.models, *prices) if prices and job.models else one)
    return estimates


def _sampling(job: Rehearsal, stage: str) -> Estimate:
    return Estimate(
        stage,
        ", ".join(dict.fromkeys(model.name for model in job.models)),
        job.run.sizes[stage],
        sum(model.calls for model in job.models),
        sum(model.read for model in job.models),
        sum(model.written for model in job.models),
        notes=(f"tokens counted as {LETTERS} letters each",),
    )


def _training(job: Rehearsal, stage: str) -> Estimate:
    """Estimate a training. The number of rows is an upper limit, because long rows are left out."""
    rows, setting = job.run.sizes[stage], job.recipe.rl_cai
    if stage != layout.RL_CAI_MODEL or setting.reward != "feedback":
        return Estimate(stage, None, rows, 0)
    calls = int(rows * setting.epochs) * setting.answers * calls_per_answer(job.recipe.feedback)
    return Estimate(stage, job.recipe.models.feedback, rows, calls)


def _priced(
    one: Estimate, models: Sequence[CountingModel], price_read: float, price_written: float
) -> Estimate:
    """Return the estimate with its cost: the price of the tokens of servers."""
    servers = [model for model in models if not model.local]
    read = (one.read or 0) * sum(m.read for m in servers) / max(1, sum(m.read for m in models))
    written = (one.written or 0) * sum(m.written for m in servers) / max(1, sum(m.written for m in models))
    return replace(one, cost=(read * price_read + written * price_written) / 1e6)


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
    """Return the expected seconds of all calls, measured on the first of them, made concurrently."""

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


# -- the rehearsal


class CountingModel:
    """A model that writes filler of the maximum length, and counts calls and tokens."""

    format: Format = "chat"

    def __init__(self, name: str, words: Sequence[str] = ("word",)) -> None:
        self.name, self.local = name, name.startswith((*LOCAL_SCHEMES, "scripted:"))
        self.calls = self.read = self.written = 0
        self.scores = False
        """Whether log-probabilities were requested."""
        self.sample: list[Callable[[Model], Any]] = []
        self._words, self._fillers = words, dict[tuple[int, int], str]()

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        self._count(lambda model: model.generate(context, sampling), tokens(context), sampling.max_tokens)
        text = self._filler(sampling.seed % FILLERS, max(3, int(WORDS * sampling.max_tokens)))
        return Completion(text, self.name, "stop", 0, sampling.max_tokens)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        self.scores = True
        # A server reads the context once more for each continuation, and writes one token each time.
        times = 1 if self.local else len(continuations) + 1
        read = times * tokens(context) + tokens("".join(continuations))
        self._count(lambda model: model.score(context, continuations), read, 0 if self.local else times)
        return [-1.0] * len(continuations)

    def _count(self, call: Callable[[Model], Any], read: int, written: int) -> None:
        self.calls, self.read, self.written = self.calls + 1, self.read + read, self.written + written
        if len(self.sample) < SAMPLE:
            self.sample.append(call)

    def _filler(self, number: int, length: int) -> str:
        """Return filler that starts with "(A)", so that it also answers a multiple-choice question."""
        if (number, length) not in self._fillers:
            words = (self._words[(17 * number + at) % len(self._words)] for at in range(length))
            self._fillers[number, length] = "(A) " + " ".join(words)
        return self._fillers[number, length]


def tokens(context: Context) -> int:
    """Return the approximate number of tokens of a context."""
    return len(context if isinstance(context, str) else plain(context)) // LETTERS + 1


class Counted(Exception):
    """Raised to end a training before it starts; carries the number of its rows."""


@dataclass(frozen=True)
class UnstoredRun(Run):
    """A run that keeps records in memory and trains nothing."""

    records: dict[str, list[Any]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Number of records, or of training rows, by stage."""
    prompts_per_snapshot: float = float("inf")
    """Prompts of one epoch between snapshots."""

    def snapshots(self) -> list[Path]:
        count = int(self.sizes.get(layout.RL_CAI_MODEL, 0) // self.prompts_per_snapshot)
        return [self.folder / f"{number:08d}" for number in range(count)]

    def rows(self, stage: str, row_type: type[Row], file: str = layout.RECORDS) -> list[Row]:
        return self.records.get(stage, [])

    async def make_extra_rows(
        self, stage: str, file: str, row_type: type[Row], work: Pass[Any, Row]
    ) -> list[Row]:
        rows = []
        for item in work.items.values():
            try:
                rows.append(await work.step(item))
            except RecordError:  # the filler is not a valid answer; the calls are counted
                continue
        return rows

    def make_model(self, stage: str, train: Callable[[Path], Trained], **_: Any) -> None:
        try:
            train(self.stage(stage))
        except Counted as counted:
            self.sizes[stage] = counted.args[0]

    def output_digest(self, stage: str) -> str:
        return ""


@dataclass(frozen=True)
class Rehearsal(Job):
    """A job that counts instead of running. Drafts are all kept, and no row is too long."""

    run: UnstoredRun
    models: list[CountingModel] = field(default_factory=list)
    """The models that the stage has loaded, in order."""

    @contextmanager
    def loaded(self, name: str) -> Iterator[Model]:
        trained = name.startswith(f"hf:{self.run.folder}")
        words = " ".join(p.conversation[-1].content for p in self.prompts["helpful"].train).split()
        self.models.append(CountingModel(self.recipe.models.pretrained if trained else name, words or ["word"]))
        yield self.models[-1]

    def preference_model(self) -> None:
        return None

    @cached_property
    def drafted(self) -> dict[Kind, list[Prompt]]:
        wanted, text = self.drafts_wanted, "Would you please tell me about drafted matter {}?"
        return {
            kind: [
                Prompt.of((Message("user", text.format(n)),), kind, "drafted")
                for n in range(wanted.get(kind, 0))
            ]
            for kind in KINDS
        }

    def make_rows(
        self, stage: str, row_type: type[Row], passes: Callable[[], AsyncIterable[Pass[Any, Row]]], **_: Any
    ) -> list[Row]:
        async def all_passes() -> list[Row]:
            run = self.run
            return [row async for p in passes() for row in await run.make_extra_rows(stage, "", row_type, p)]

        rows = asyncio.run(all_passes())
        self.run.records[stage], self.run.sizes[stage] = rows, len(rows)
        return rows

    def usable_rows(self, stage: str, rows: Rows, section: str, *, reserve: int = 0) -> tuple[Rows, Notes]:
        return rows, {}

    def training_job(self, folder: Path, rows: Rows, section: str) -> TrainingJob[Any]:
        raise Counted(len(rows))


def rehearsal(recipe: Recipe) -> Rehearsal:
    """Return a job that counts what the recipe would do. Raises InputError when a file cannot be read."""
    # Filler fails the gate, which must not stop the rehearsal.
    feedback = recipe.feedback.model_copy(update={"gate": "warn"})
    constitution = apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    prompts = {kind: load_prompts(getattr(recipe.prompts, kind).file, kind) for kind in KINDS}
    rl = recipe.rl_cai
    every = max(rl.snapshot_every, rl.prompts_per_batch) / rl.epochs if rl.snapshot_every else float("inf")
    run = UnstoredRun(Path(recipe.out).resolve(), prompts_per_snapshot=every)
    counted_recipe = recipe.model_copy(update={"feedback": feedback})
    return Rehearsal(run, counted_recipe, constitution, prompts, lambda text: None)


# -- output


def write(path: Path, estimates: Sequence[Estimate]) -> None:
    """Write the estimates as JSON."""
    write_atomically(path, json.dumps([asdict(one) for one in estimates], indent=1, ensure_ascii=False) + "\n")


def table(estimates: Sequence[Estimate]) -> Group:
    """Return a table of the stages and their sum; a sum with an unknown part is unknown."""
    shown = Table("stage", box=None)
    shown.columns[0].no_wrap = True
    for head in ("records", "calls", "tokens read", "written at most", "time", "cost"):
        shown.add_column(head, justify="right")
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
