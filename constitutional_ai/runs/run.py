"""A run is a directory that explains itself.

::

    runs/demo/
      run.json  recipe.yaml  constitution.yaml
      01-responses/  records.jsonl  failures.jsonl  stage.json
      …
      03-sl-cai-model/  dataset.jsonl  model/  metrics.jsonl  stage.json

A stage is done if and only if its ``stage.json`` exists and matches the settings and inputs asked for now. What has
been made is never overwritten silently.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from constitutional_ai.errors import InputError, StageChanged
from constitutional_ai.records import Checkpoint
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.manifest import StageManifest, commit, versions
from constitutional_ai.runs.rows import (
    PART,
    StoredRows,
    adapter,
    digest_file,
    load_json,
    naming_full_disk,
    read_rows,
    write_atomically,
)
from constitutional_ai.runs.runner import HasId, Pass, Progress, Silent, run_rows

Row = TypeVar("Row", bound=HasId)
Item = TypeVar("Item")

SILENT = Silent()
OURS = {layout.RECIPE, layout.CONSTITUTION, layout.RUN, layout.LOCK}
"""What may lie in a folder before its ``run.json`` is written."""


class Trained(NamedTuple):
    """What a training leaves behind."""

    checkpoint: Checkpoint
    rows: int
    """How many it was trained on."""
    notes: dict[str, Any] = {}  # noqa: RUF012
    """What ``stage.json`` is to say besides."""


@dataclass(frozen=True)
class Run:
    """An open run directory. Read-only unless it was opened by ``open_run``."""

    folder: Path
    progress: Progress = SILENT
    settings_source: str = "the recipe"
    """What says how a stage is to be made, in words."""
    remedy: str = "Pass --redo {stage}, or use a new run (out=...)."
    """What to do where that has changed since."""

    # -- reading

    def stage(self, name: str) -> Path:
        return self.folder / name

    def snapshots(self) -> list[Path]:
        """Return the folders of the snapshots of reinforcement learning, each named after the prompts seen (RL-6)."""
        folders = (self.stage(layout.RL_CAI_MODEL) / layout.SNAPSHOTS).glob("*")
        return sorted(folder for folder in folders if folder.name.isdecimal())

    def manifest(self, stage: str) -> StageManifest | None:
        """None while the stage is not complete."""
        path = self.stage(stage) / layout.MANIFEST
        return adapter(StageManifest).validate_json(path.read_bytes()) if path.exists() else None

    def rows(self, stage: str, row_type: type[Row], file: str = layout.RECORDS) -> list[Row]:
        return list(read_rows(self.stage(stage) / file, row_type))

    def budget(self, tokens: int | None, hours: float | None, *, excluding: str) -> Budget:
        """A budget for all stages together, and what the finished ones, ``but`` for one, have spent of it."""
        done = [m for m in map(self.manifest, self.started_stages()) if m is not None and m.stage != excluding]
        return Budget(
            tokens,
            hours,
            spent=sum(m.prompt_tokens + m.completion_tokens for m in done),
            seconds=sum(m.seconds for m in done),
        )

    # -- making

    def make_rows(
        self,
        stage: str,
        row_type: type[Row],
        passes: Callable[[], AsyncIterable[Pass[Item, Row]]],
        *,
        config: dict[str, Any],
        inputs: dict[str, str],
        concurrency: int,
        max_failures: int,
        notes: Callable[[Sequence[Row]], dict[str, Any]] = lambda rows: {},
        budget: Budget | None = None,
    ) -> StoredRows[Row]:
        """The records of a stage, made where they are missing, and read from its file when they are asked for.

        ``passes`` is called only when something may be owed, so that a finished stage loads no model. What ``notes``
        finds in the finished records stands in ``stage.json``. Raises BudgetSpent when ``budget`` is empty.
        """
        if self._is_done(stage, config, inputs):
            return StoredRows(self.stage(stage) / layout.RECORDS, row_type)
        began = time.monotonic()
        made = asyncio.run(
            run_rows(
                self.stage(stage),
                passes(),
                row_type,
                concurrency=concurrency,
                max_failures=max_failures,
                progress=self.progress,
                budget=budget,
            )
        )
        self._complete(
            StageManifest(
                stage,
                config,
                inputs,
                digest_file(self.stage(stage) / layout.RECORDS),
                len(made.records),
                made.failures,
                made.tokens.prompt_tokens,
                made.tokens.completion_tokens,
                time.monotonic() - began,
                _now(),
                notes(made.records),
            )
        )
        return made.records

    async def make_extra_rows(
        self,
        stage: str,
        file: str,
        row_type: type[Row],
        work: Pass[Item, Row],
        *,
        concurrency: int,
        max_failures: int,
    ) -> list[Row]:
        """Records that belong to a stage and are no part of its output."""

        async def one_pass() -> AsyncIterator[Pass[Item, Row]]:
            yield work

        made = await run_rows(
            self.stage(stage),
            one_pass(),
            row_type,
            concurrency=concurrency,
            max_failures=max_failures,
            progress=self.progress,
            file=file,
        )
        return list(made.records)

    def make_model(
        self,
        stage: str,
        train: Callable[[Path], Trained],
        *,
        config: dict[str, Any],
        inputs: dict[str, str],
    ) -> Checkpoint:
        """The checkpoint of a stage, which ``train(folder)`` makes."""
        if self._is_done(stage, config, inputs):
            manifest = self.manifest(stage)
            assert manifest is not None
            return Checkpoint(
                str(self.stage(stage) / layout.WEIGHTS), manifest.notes["base_model"], manifest.output
            )
        began = time.monotonic()
        folder = self.stage(stage)
        folder.mkdir(parents=True, exist_ok=True)
        with naming_full_disk(folder):
            checkpoint, rows, notes = train(folder)
        gc.collect()  # trainers hold their models in cycles
        self._complete(
            StageManifest(
                stage,
                config,
                inputs,
                checkpoint.digest,
                rows,
                0,
                0,
                0,
                time.monotonic() - began,
                _now(),
                {"base_model": checkpoint.base_model, **notes},
            )
        )
        self.progress.finish(stage)
        return checkpoint

    def output_digest(self, stage: str) -> str:
        """Digest of a complete stage's output, to be an input of the next. Records are digested anew, so that an
        edit by hand is noticed; weights are large and their digest is taken from ``stage.json``."""
        manifest = self.manifest(stage)
        assert manifest is not None, f"{stage} is not complete"
        records = self.stage(stage) / layout.RECORDS
        return digest_file(records) if records.exists() else manifest.output

    def _is_done(self, stage: str, config: dict[str, Any], inputs: dict[str, str]) -> bool:
        """Whether a stage is complete. Raises StageChanged when what is there was made from something else."""
        started = self.started_stages()
        wanted = {"config": config, "inputs": inputs}
        if stage not in started:
            self.write_started_stages({**started, stage: wanted})
        elif changed := _what_changed(stage, started[stage], wanted, self.settings_source):
            raise StageChanged(f"{changed} {self.remedy.format(stage=stage)}")
        return self.manifest(stage) is not None

    def _complete(self, manifest: StageManifest) -> None:
        full = {**asdict(manifest), "versions": versions(), "commit": commit()}
        write_atomically(self.stage(manifest.stage) / layout.MANIFEST, json.dumps(full, indent=1) + "\n")

    # -- run.json: what each stage was started from, so that a half-made stage is guarded too

    def started_stages(self) -> dict[str, Any]:
        about = load_json(self.folder / layout.RUN, dict[str, Any]) or {}
        return dict(about.get("stages", {}))

    def write_started_stages(self, stages: dict[str, Any]) -> None:
        about = {"name": self.folder.name, "versions": versions(), "commit": commit(), "stages": stages}
        write_atomically(self.folder / layout.RUN, json.dumps(about, indent=1) + "\n")

    def remove_stages(self, *later: str) -> None:
        """Removes stages, so that they are made anew."""
        started = {name: made for name, made in self.started_stages().items() if name not in later}
        self.write_started_stages(started)
        for name in later:
            shutil.rmtree(self.stage(name), ignore_errors=True)


@contextmanager
def open_run(folder: Path, texts: Mapping[str, str], progress: Progress) -> Iterator[Run]:
    """A run directory open for writing, for this process alone; ``texts`` are the files that say what is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = (folder / layout.RUN).exists() or all(
            p.name.removesuffix(PART) in OURS for p in folder.iterdir()
        )
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is a file, not a folder for a run. Set out= to another place.") from error
    except PermissionError as error:
        raise InputError(f"no right to write to {folder}. Set out= to another place.") from error
    if not known:
        raise InputError(f"{folder} holds files that are no run of ours. Set out= to another place.")
    with _locked(folder):
        before = {name: (folder / name).read_text() for name in texts if (folder / name).exists()}
        for name, text in texts.items():
            write_atomically(folder / name, text)
        try:
            yield Run(folder, progress)
        except StageChanged:
            for name, text in before.items():  # what the run was made from still stands
                write_atomically(folder / name, text)
            raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps two processes from writing one run. The lock dies with its process."""
    with (folder / layout.LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process is working on {folder}. Wait for it, or set out= to another place."
            ) from error
        yield


def read_run(folder: str | Path) -> Run:
    """Opens a run for reading. Raises InputError when there is none."""
    path = Path(folder)
    if not (path / layout.RUN).exists():
        known = [str(p.parent) for p in sorted(Path("runs").glob(f"*/{layout.RUN}"))]
        hint = f" Runs here: {', '.join(known)}." if known else " Make one with: cai run demo"
        raise InputError(f"no run in '{folder}'.{hint}")
    return Run(path)


def _what_changed(stage: str, then: dict[str, Any], now: dict[str, Any], settings_source: str) -> str | None:
    """A sentence, or None. A setting that a stage was made without, because it came later, changes nothing."""
    now = json.loads(json.dumps(now))
    for key in sorted(then["config"].keys() & now["config"].keys()):
        old, new = then["config"][key], now["config"][key]
        if old != new:
            return f"{stage} was made with {key}: {_short(old)}, {settings_source} now says {_short(new)}."
    changed = [k for k in {**then["inputs"], **now["inputs"]} if then["inputs"].get(k) != now["inputs"].get(k)]
    return f"{stage} was made from another version of {' and '.join(sorted(changed))}." if changed else None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def digest_of(names: Iterable[str]) -> str:
    """Digest of some names in their order, for ``inputs``."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
