"""Run the stages of a recipe with models that write filler and count their calls, in a run that stores nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from constitutional_ai.data.prompts import KINDS
from constitutional_ai.errors import RecordError
from constitutional_ai.models.load import LOCAL_SCHEMES
from constitutional_ai.models.model import Context, Format, Model, Sampling, plain
from constitutional_ai.records import Checkpoint, Completion, Kind, Message, Prompt
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run, Trained
from constitutional_ai.runs.runner import HasId, Pass
from constitutional_ai.stages.job import Job, Notes, Rows
from constitutional_ai.training.training_job import TrainingJob

Row = TypeVar("Row", bound=HasId)
LETTERS = 4
"""Letters counted as one token. Servers publish no tokenizer, and tokens of local models cost nothing."""
WORDS = 0.75
"""Words of filler in one token."""
FILLERS = 64
"""Different texts of filler, which all records share: there may be a million."""
SAMPLE = 32
"""Requests of a stage that are kept, to measure a model on."""


class CountingModel:
    """A model that writes filler, as long as it may, and counts calls and tokens."""

    format: Format = "chat"

    def __init__(self, name: str, words: Sequence[str] = ("word",)) -> None:
        self.name, self.local = name, name.startswith((*LOCAL_SCHEMES, "scripted:"))
        self.calls = self.read = self.written = 0
        self.scores = False
        """Whether it was asked for log-probabilities."""
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
        """Return filler that reads as option (A) where a question has options."""
        if (number, length) not in self._fillers:
            words = (self._words[(17 * number + at) % len(self._words)] for at in range(length))
            self._fillers[number, length] = "(A) " + " ".join(words)
        return self._fillers[number, length]


def tokens(context: Context) -> int:
    return len(context if isinstance(context, str) else plain(context)) // LETTERS + 1


class Counted(Exception):
    """Ends a training before it starts, with the number of its rows."""


@dataclass(frozen=True)
class UnstoredRun(Run):
    """A run that keeps records in memory and trains nothing."""

    records: dict[str, list[Any]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """How many records a stage has, or how many rows it trains on."""
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
        return await rows_of(work)

    def make_model(
        self, stage: str, train: Callable[[Path], Trained], *, config: dict[str, Any], inputs: dict[str, str]
    ) -> Checkpoint:
        try:
            train(self.stage(stage))
        except Counted as counted:
            self.sizes[stage] = counted.args[0]
        return Checkpoint("", "", "")

    def output_digest(self, stage: str) -> str:
        return ""


@dataclass(frozen=True)
class Rehearsal(Job):
    """A job that counts instead of running. Drafts are all kept, and no row is too long."""

    run: UnstoredRun
    models: list[CountingModel] = field(default_factory=list)
    """Every model that a stage loaded, in order."""

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
        return {kind: [_draft(kind, n) for n in range(self.drafts_wanted.get(kind, 0))] for kind in KINDS}

    def make_rows(
        self, stage: str, row_type: type[Row], passes: Callable[[], AsyncIterable[Pass[Any, Row]]], **_: Any
    ) -> list[Row]:
        async def all_passes() -> list[Row]:
            return [row async for work in passes() for row in await rows_of(work)]

        rows = asyncio.run(all_passes())
        self.run.records[stage], self.run.sizes[stage] = rows, len(rows)
        return rows

    def usable_rows(self, stage: str, rows: Rows, section: str, *, reserve: int = 0) -> tuple[Rows, Notes]:
        return rows, {}

    def training_job(self, folder: Path, rows: Rows, section: str) -> TrainingJob[Any]:
        raise Counted(len(rows))


async def rows_of(work: Pass[Any, Row]) -> list[Row]:
    rows = []
    for item in work.items.values():
        try:
            rows.append(await work.step(item))
        except RecordError:  # the filler does not fit the question; its calls are counted
            continue
    return rows


def _draft(kind: Kind, number: int) -> Prompt:
    text = f"Would you please tell me about drafted matter {number}?"
    return Prompt.of((Message("user", text),), kind, "drafted")
