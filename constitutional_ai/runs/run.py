"""A run: a directory with the output, the settings and the input digests of every stage.

::

    runs/demo/
      run.json  recipe.yaml  constitution.yaml
      01-responses/  records.jsonl  failures.jsonl  stage.json
      …
      03-sl-cai-model/  dataset.jsonl  model/  metrics.jsonl  stage.json

A stage is complete if and only if its ``stage.json`` exists. It is reused only if its settings and inputs have not
changed; otherwise StageChanged is raised, and nothing is overwritten. A stage in which nothing was made yet holds no
setting. ``recipe.yaml`` and ``constitution.yaml`` are written when a stage is begun, and describe all that are there.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from constitutional_ai.errors import StageChanged
from constitutional_ai.records import Checkpoint, Usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.about import read_about
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.manifest import StageManifest, commit, difference, versions
from constitutional_ai.runs.provenance import Provenance, has_records
from constitutional_ai.runs.rows import (
    StoredRows,
    digest_file,
    load_json,
    naming_full_disk,
    write_atomically,
)
from constitutional_ai.runs.runner import HasId, Pass, Progress, Silent, StageRows, lost_tokens, run_rows
from constitutional_ai.runs.written_files import check_written

Row = TypeVar("Row", bound=HasId)
Item = TypeVar("Item")
CHECKED = (layout.DRAFTED, layout.GATE)
"""Files of records beside ``records.jsonl``, whose digests ``stage.json`` has too."""


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
    tokens: tuple[int | None, int | None] = (0, 0)


def show_nothing(text: str) -> None:
    """Show nothing."""


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
    provenance: Provenance = field(default_factory=Provenance)
    """What stages are made with now."""
    retries_failures: bool = False
    """Whether the failed records of complete stages are tried again, and later stages follow."""
    say: Callable[[str], None] = show_nothing
    """Shows the user a message that must not be missed."""

    # -- reading

    def stage(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.folder / name

    def snapshots(self) -> list[Path]:
        """Return the folders of the snapshots of reinforcement learning, each named after the prompts seen (RL-6)."""
        folders = (self.stage(layout.RL_CAI_MODEL) / layout.SNAPSHOTS).glob("*")
        return sorted(folder for folder in folders if folder.name.isdecimal())

    def manifest(self, stage: str) -> StageManifest | None:
        """Return the content of ``stage.json``; None while the stage is not complete. Raises InputError."""
        return load_json(self.stage(stage) / layout.MANIFEST, StageManifest)

    def stored_rows(self, stage: str, row_type: type[Any], file: str = layout.RECORDS) -> StoredRows[Any]:
        """Return the rows of a file of a stage; none if the file does not exist.

        Reading them raises InputError if the stage is complete and the file is no longer what the stage wrote.
        """
        return StoredRows(self.stage(stage) / file, row_type, lambda: self._check(stage, file))

    def rows(self, stage: str, row_type: type[Row], file: str = layout.RECORDS) -> list[Row]:
        """Return the rows of ``stored_rows`` as a list."""
        return list(iter(self.stored_rows(stage, row_type, file)))

    def _check(self, stage: str, file: str = layout.RECORDS) -> None:
        if (manifest := self.manifest(stage)) and not (file == layout.RECORDS and self._is_model(manifest)):
            expected = manifest.output if file == layout.RECORDS else manifest.files.get(file, "")
            check_written(self.stage(stage) / file, stage, expected)

    def _is_model(self, manifest: StageManifest) -> bool:
        return "base_model" in manifest.notes or (self.stage(manifest.stage) / layout.WEIGHTS).is_dir()

    def is_stale(self, stage: str) -> bool:
        """Return whether a complete stage was made from something else than earlier stages have now."""
        manifest = self.manifest(stage)
        inputs = manifest.inputs if manifest else {}
        earlier = [
            (name, m.output) for name in layout.earlier(stage) if name in inputs and (m := self.manifest(name))
        ]
        return any(output != inputs[name] or self.is_stale(name) for name, output in earlier)

    def budget(self, tokens: int | None, hours: float | None, *, excluding: str) -> Budget:
        """Return the budget of the whole run, less the cost of the complete stages other than ``excluding``."""
        done = [m for m in map(self.manifest, self.started_stages()) if m is not None and m.stage != excluding]
        unknown = next((m.stage for m in done if m.prompt_tokens is None), None)
        return Budget(
            tokens,
            hours,
            spent=sum(m.tokens for m in done),
            seconds=sum(m.seconds for m in done),
            unknown=unknown and f"the model of {unknown} did not say how many tokens it read and wrote",
        )

    def output_digest(self, stage: str) -> str:
        """Return the digest of a complete stage's output, which is an input of later stages.

        Raises InputError if its records are no longer those that the stage wrote. Weights, which are large, are not
        read.
        """
        manifest = self.manifest(stage)
        assert manifest is not None, f"{stage} is not complete"
        self._check(stage)
        return manifest.output

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
        still_fits: Callable[[], bool] | None = None,
    ) -> StoredRows[Row]:
        """Make the missing records of a stage, and return all of its records.

        ``passes`` is called only for an incomplete stage, so that a complete one loads no model. The result of
        ``notes`` is written to ``stage.json``. ``still_fits`` says whether the records made so far belong to the
        inputs of now, although these have grown; without it, records from other inputs never do. Raises StageChanged,
        TooManyFailures, BudgetSpent and TokensUnknown.
        """
        records = self.stage(stage) / layout.RECORDS

        def make() -> Output:
            result = asyncio.run(self._run_rows(stage, row_type, passes(), budget=budget))
            known, tokens = notes(result.records), result.tokens if result.counted else (None, None)
            return Output(digest_file(records), len(result.records), known, result.failures, tokens)

        self._complete(stage, config, inputs, make, still_fits)
        return self.stored_rows(stage, row_type)

    async def make_extra_rows(
        self, stage: str, file: str, row_type: type[Row], work: Pass[Item, Row], *, budget: Budget
    ) -> StageRows[Row]:
        """Make the missing records of a file that belongs to a stage but not to its output.

        Raises BudgetSpent and TokensUnknown, as ``make_rows`` does.
        """

        async def one_pass() -> AsyncIterator[Pass[Item, Row]]:
            yield work

        return await self._run_rows(stage, row_type, one_pass(), file=file, budget=budget)

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
            say=self.say,
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
        self,
        stage: str,
        config: dict[str, Any],
        inputs: dict[str, str],
        make: Callable[[], Output],
        still_fits: Callable[[], bool] | None = None,
    ) -> None:
        """Make the output of a stage and write ``stage.json``, unless the stage is complete."""
        if self._is_done(stage, config, inputs, still_fits):
            return
        before, started = self.manifest(stage), time.monotonic()
        with self._reopened(stage):
            output, records, notes, failures, tokens = make()
        seconds, now = time.monotonic() - started, datetime.now(UTC).isoformat(timespec="seconds")
        seconds += before.seconds if before else 0
        manifest = StageManifest(
            stage, config, inputs, output, records, failures, *tokens, seconds, now, notes, versions(), commit(),
            {name: digest_file(file) for name in CHECKED if (file := self.stage(stage) / name).exists()},
        )  # fmt: skip
        self._write_manifest(manifest)

    def _write_manifest(self, manifest: StageManifest) -> None:
        path = self.stage(manifest.stage) / layout.MANIFEST
        write_atomically(path, json.dumps(asdict(manifest), indent=1) + "\n")

    @contextmanager
    def _reopened(self, stage: str) -> Iterator[None]:
        """Take back that a stage is complete for the block; if that fails and no record is new, it is as before.

        What the block spent on failures is then added to the stage's tokens.
        """
        manifest, lost = self.manifest(stage), lost_tokens(self.stage(stage))
        files = [self.stage(stage) / name for name in (layout.MANIFEST, layout.FAILURES)]
        kept = {file: file.read_text(encoding="utf-8") for file in files if manifest and file.exists()}
        files[0].unlink(missing_ok=True)
        try:
            yield
        except BaseException:
            if manifest and digest_file(self.stage(stage) / layout.RECORDS) == manifest.output:
                for file, text in reversed(kept.items()):
                    write_atomically(file, text)
                more = Usage(*map(int.__sub__, lost_tokens(self.stage(stage)), lost))
                if any(more):
                    self._write_manifest(manifest.with_more(more))
            raise

    # -- run.json: the settings and inputs of started stages, so that changes are noticed before a stage is complete

    def started_stages(self) -> dict[str, Any]:
        """Return the ``config`` and ``inputs`` of every stage that was started."""
        return dict(read_about(self.folder).get("stages", {}))

    def write_started_stages(self, stages: dict[str, Any]) -> None:
        """Write ``run.json``."""
        date = self.date or read_about(self.folder).get("date")
        about = {"name": self.folder.name, "versions": versions(), "commit": commit(), "date": date}
        about["stages"] = stages
        write_atomically(self.folder / layout.RUN, json.dumps(about, indent=1) + "\n")

    def remove_stages(self, *stages: str) -> None:
        """Delete stages, so that they are made again. Writes ``run.json`` even if ``stages`` is empty."""
        self.write_started_stages({k: v for k, v in self.started_stages().items() if k not in stages})
        for stage in stages:
            shutil.rmtree(self.stage(stage), ignore_errors=True)

    def _is_done(
        self, stage: str, config: dict[str, Any], inputs: dict[str, str], still_fits: Callable[[], bool] | None
    ) -> bool:
        """Return whether a stage is complete. Raises StageChanged if its settings or inputs have changed."""
        manifest, now = self.manifest(stage), {"config": config, "inputs": inputs}
        own = manifest and {"config": manifest.config, "inputs": manifest.inputs}
        then = self.started_stages().get(stage, own)
        changed = then and difference(stage, then, now, self.settings_source)
        if changed and has_records(self.stage(stage)):
            if not (self.retries_failures and then and self._only_earlier_stages_changed(stage, then, now)):
                raise StageChanged(f"{changed} {self.remedy.format(stage=stage)}")
            manifest = None
            self._follow(stage, still_fits)
        elif manifest and then and not (self.retries_failures and manifest.failures):
            self._check(stage)
            if not self.provenance.exists(self.folder):
                self._begin(stage, then)
            return True
        self._begin(stage, now)
        return False

    def _only_earlier_stages_changed(self, stage: str, then: dict[str, Any], now: dict[str, Any]) -> bool:
        """Return whether only the outputs of earlier stages have changed since a stage was started."""
        if difference(stage, then, {**now, "inputs": then["inputs"]}, ""):
            return False
        changed = {
            k for k in {**then["inputs"], **now["inputs"]} if then["inputs"].get(k) != now["inputs"].get(k)
        }
        drafts, own = self.manifest(layout.PROMPTS), self.manifest(stage)
        if drafts and (own is None or drafts.finished > own.finished):
            changed -= {"prompts"}  # more were drafted since
        return changed <= set(layout.STAGES)

    def _follow(self, stage: str, still_fits: Callable[[], bool] | None) -> None:
        """Prepare a stage to be made from what an earlier one has now: to be extended, or else to be made again."""
        if still_fits and still_fits():
            self.say(f"{stage} is extended: the records that earlier stages made since are added.")
            (self.stage(stage) / layout.MANIFEST).unlink(missing_ok=True)
        else:
            self.say(f"{stage} is made again: it was made before earlier stages got more records.")
            self.remove_stages(stage)

    def _begin(self, stage: str, now: dict[str, Any]) -> None:
        """Write what a stage is made with. Raises StageChanged if a stage on disk was made with something else."""
        started = self.started_stages()
        others = {k: then for k, then in started.items() if k != stage and has_records(self.stage(k))}
        for other, then in others.items():
            if changed := self.provenance.differs(other, then, self.settings_source):
                raise StageChanged(f"{changed} {self.remedy.format(stage=other)}")
        if started.get(stage) != now:
            self.write_started_stages({**started, stage: now})
        self.provenance.write(self.folder)


def digest_of(names: Iterable[str]) -> str:
    """Return a digest of names and their order, for ``inputs``."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
