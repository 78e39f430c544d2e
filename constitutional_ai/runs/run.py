"""A run: a directory with the output, the settings and the input digests of every stage.

::

    runs/demo/
      run.json  recipe.yaml  constitution.yaml
      01-responses/  records.jsonl  failures.jsonl  stage.json
      …
      03-sl-cai-model/  dataset.jsonl  model/  metrics.jsonl  stage.json

A stage is complete if and only if its ``stage.json`` exists. It is reused only if its settings and inputs have not
changed; otherwise StageChanged is raised, and nothing is overwritten.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from constitutional_ai.errors import StageChanged
from constitutional_ai.records import Checkpoint, Usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.manifest import StageManifest, commit, difference, versions
from constitutional_ai.runs.rows import (
    StoredRows,
    adapter,
    digest_file,
    load_json,
    naming_full_disk,
    read_rows,
    write_atomically,
)
from constitutional_ai.runs.runner import HasId, Pass, Progress, Silent, StageRows, run_rows

Row = TypeVar("Row", bound=HasId)
Item = TypeVar("Item")


class Trained(NamedTuple):
    """The result of a training."""

    checkpoint: Checkpoint
    rows: int
    """Number of rows that it was trained on."""
    notes: dict[str, Any] = {}  # noqa: RUF012
    """Further keys of ``notes`` in ``stage.json``."""


class Output(NamedTuple):
    """What making a stage gave, for its ``stage.json``."""

    digest: str
    records: int
    notes: dict[str, Any]
    failures: int = 0
    tokens: Usage = Usage(0, 0)


@dataclass(frozen=True)
class Run:
    """An open run directory. Only ``open_run`` opens one for writing."""

    folder: Path
    progress: Progress = field(default_factory=Silent)
    settings_source: str = "the recipe"
    """Name of the source of the settings, in errors."""
    remedy: str = "Pass --redo {stage}, or use a new run (out=...)."
    """Advice when the settings have changed, in errors."""
    concurrency: int = 256
    """Records that are worked on at the same time."""
    max_failures: int = 20
    """A stage stops when more records than this have failed."""
    date: str | None = None
    """The day that chat templates write, for ``run.json``; None keeps what it says."""

    # -- reading

    def stage(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.folder / name

    def snapshots(self) -> list[Path]:
        """Return the folders of the snapshots of reinforcement learning, each named after the prompts seen (RL-6)."""
        folders = (self.stage(layout.RL_CAI_MODEL) / layout.SNAPSHOTS).glob("*")
        return sorted(folder for folder in folders if folder.name.isdecimal())

    def manifest(self, stage: str) -> StageManifest | None:
        """Return the content of ``stage.json``; None while the stage is not complete."""
        path = self.stage(stage) / layout.MANIFEST
        return adapter(StageManifest).validate_json(path.read_bytes()) if path.exists() else None

    def rows(self, stage: str, row_type: type[Row], file: str = layout.RECORDS) -> list[Row]:
        """Return the rows of a file of a stage; an empty list if the file does not exist."""
        return list(read_rows(self.stage(stage) / file, row_type))

    def budget(self, tokens: int | None, hours: float | None, *, excluding: str) -> Budget:
        """Return the budget of the whole run, less the cost of the complete stages other than ``excluding``."""
        done = [m for m in map(self.manifest, self.started_stages()) if m is not None and m.stage != excluding]
        return Budget(
            tokens,
            hours,
            spent=sum(m.prompt_tokens + m.completion_tokens for m in done),
            seconds=sum(m.seconds for m in done),
        )

    def output_digest(self, stage: str) -> str:
        """Return the digest of a complete stage's output, which is an input of later stages.

        The digest of records is computed again, so that an edit by hand is noticed. That of weights, which are large,
        is read from ``stage.json``.
        """
        manifest = self.manifest(stage)
        assert manifest is not None, f"{stage} is not complete"
        records = self.stage(stage) / layout.RECORDS
        return digest_file(records) if records.exists() else manifest.output

    # -- making

    def make_rows(
        self,
        stage: str,
        row_type: type[Row],
        passes: Callable[[], AsyncIterable[Pass[Item, Row]]],
        *,
        config: dict[str, Any],
        inputs: dict[str, str],
        notes: Callable[[Collection[Row]], dict[str, Any]] = lambda rows: {},
        budget: Budget | None = None,
    ) -> StoredRows[Row]:
        """Make the missing records of a stage, and return all of its records.

        ``passes`` is called only for an incomplete stage, so that a complete one loads no model. The result of
        ``notes`` is written to ``stage.json``. Raises StageChanged, TooManyFailures and BudgetSpent.
        """
        records = self.stage(stage) / layout.RECORDS

        def make() -> Output:
            result = asyncio.run(self._run_rows(stage, row_type, passes(), budget=budget))
            known = notes(result.records)
            return Output(digest_file(records), len(result.records), known, result.failures, result.tokens)

        self._complete(stage, config, inputs, make)
        return StoredRows(records, row_type)

    async def make_extra_rows(
        self, stage: str, file: str, row_type: type[Row], work: Pass[Item, Row]
    ) -> list[Row]:
        """Make the missing records of a file that belongs to a stage but not to its output."""

        async def one_pass() -> AsyncIterator[Pass[Item, Row]]:
            yield work

        return list((await self._run_rows(stage, row_type, one_pass(), file=file)).records)

    async def _run_rows(
        self, stage: str, row_type: type[Row], passes: AsyncIterable[Pass[Item, Row]], **options: Any
    ) -> StageRows[Row]:
        return await run_rows(
            self.stage(stage),
            passes,
            row_type,
            concurrency=self.concurrency,
            max_failures=self.max_failures,
            progress=self.progress,
            **options,
        )

    def make_model(
        self, stage: str, train: Callable[[Path], Trained], *, config: dict[str, Any], inputs: dict[str, str]
    ) -> None:
        """Train a model by ``train(folder)``, unless the stage is complete. Raises StageChanged."""
        folder = self.stage(stage)

        def make() -> Output:
            folder.mkdir(parents=True, exist_ok=True)
            with naming_full_disk(folder):
                checkpoint, rows, notes = train(folder)
            gc.collect()  # trainers hold their models in reference cycles
            self.progress.finish(stage)
            return Output(checkpoint.digest, rows, {"base_model": checkpoint.base_model, **notes})

        self._complete(stage, config, inputs, make)

    def _complete(
        self, stage: str, config: dict[str, Any], inputs: dict[str, str], make: Callable[[], Output]
    ) -> None:
        """Make the output of a stage and write ``stage.json``, unless the stage is complete."""
        if self._is_done(stage, config, inputs):
            return
        started = time.monotonic()
        output, records, notes, failures, tokens = make()
        seconds, now = time.monotonic() - started, datetime.now(UTC).isoformat(timespec="seconds")
        manifest = StageManifest(
            stage, config, inputs, output, records, failures, *tokens, seconds, now, notes, versions(), commit()
        )
        path = self.stage(stage) / layout.MANIFEST
        write_atomically(path, json.dumps(asdict(manifest), indent=1) + "\n")

    # -- run.json: the settings and inputs of started stages, so that changes are noticed before a stage is complete

    def started_stages(self) -> dict[str, Any]:
        """Return the ``config`` and ``inputs`` of every stage that was started."""
        about = load_json(self.folder / layout.RUN, dict[str, Any]) or {}
        return dict(about.get("stages", {}))

    def write_started_stages(self, stages: dict[str, Any]) -> None:
        """Write ``run.json``."""
        date = self.date or (load_json(self.folder / layout.RUN, dict[str, Any]) or {}).get("date")
        about = {"name": self.folder.name, "versions": versions(), "commit": commit(), "date": date}
        about["stages"] = stages
        write_atomically(self.folder / layout.RUN, json.dumps(about, indent=1) + "\n")

    def remove_stages(self, *stages: str) -> None:
        """Delete stages, so that they are made again. Writes ``run.json`` even if ``stages`` is empty."""
        self.write_started_stages({k: v for k, v in self.started_stages().items() if k not in stages})
        for stage in stages:
            shutil.rmtree(self.stage(stage), ignore_errors=True)

    def _is_done(self, stage: str, config: dict[str, Any], inputs: dict[str, str]) -> bool:
        """Return whether a stage is complete. Raises StageChanged if its settings or inputs have changed."""
        started = self.started_stages()
        now = {"config": config, "inputs": inputs}
        if stage not in started:
            self.write_started_stages({**started, stage: now})
        elif changed := difference(stage, started[stage], now, self.settings_source):
            raise StageChanged(f"{changed} {self.remedy.format(stage=stage)}")
        return self.manifest(stage) is not None


def digest_of(names: Iterable[str]) -> str:
    """Return a digest of names and their order, for ``inputs``."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
