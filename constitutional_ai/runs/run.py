"""Make the stages of a run: each once, from what it was started with, and ``stage.json`` last.

``stage.json`` is written when everything that it stands for is on the disk. So a stage with one is complete, whatever
killed the process or cut the power.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from constitutional_ai.records import Checkpoint, Usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.durable import discard, remove, sync, sync_tree
from constitutional_ai.runs.guarded_run import GuardedRun
from constitutional_ai.runs.manifest import StageManifest, commit, versions
from constitutional_ai.runs.merge_shards import StageShards, whole_shards
from constitutional_ai.runs.remote_run import RemoteRun
from constitutional_ai.runs.rows import StoredRows, digest_file, naming_full_disk, write_atomically
from constitutional_ai.runs.runner import HasId, Pass, Progress, Silent, StageRows, lost_tokens, run_rows
from constitutional_ai.runs.shards import discard_shards
from constitutional_ai.runs.share import Counted, Share, refuse_unsharded
from constitutional_ai.runs.stored_run import StoredRun
from constitutional_ai.runs.written_files import digests_in

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
    tokens: tuple[int | None, int | None] = (0, 0)
    seconds: float = 0.0
    """Time that it took elsewhere, in shards."""


@dataclass(frozen=True)
class Run(GuardedRun):
    """An open run directory. Only ``open_run`` opens one for writing."""

    progress: Progress = field(default_factory=Silent)
    concurrency: int = 256
    """Records that are worked on at the same time."""
    max_failures: int = 20
    """A stage stops when more records than this have failed."""
    siblings: tuple[Path, ...] = ()
    """Folders of runs whose complete stages are linked where they were made with the same settings and inputs."""
    share: Share | None = None
    """The shard that is made here, in its own folder; None for a whole run."""
    make_shards: Callable[[str, Progress], None] | None = None
    """Makes all shards of a stage on other machines."""

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
            shards = self._whole_shards(stage)
            if shards:
                shards.check(config, inputs, self.settings_source)
                self._hold_engines(stage, shards)
                result = shards.merge(row_type, self.max_failures)
            else:
                result = asyncio.run(self._run_rows(stage, row_type, passes(), budget=budget, share=self.share))
            known = self.share.notes if self.share else notes(result.records)
            tokens = result.tokens if result.counted else (None, None)
            digest, seconds = digest_file(records), shards.seconds if shards else 0.0
            return Output(digest, len(result.records), known, result.failures, tokens, seconds)

        self._complete(stage, config, inputs, make, still_fits)
        return self.stored_rows(stage, row_type)

    def _whole_shards(self, stage: str) -> StageShards | None:
        """Return the complete shards of a stage, made now where other machines make them; None if it has none."""
        if self.make_shards and stage in layout.SHARDED:
            refuse_unsharded(self, stage)
            if self.remote:
                self.remote.store_about()  # from which workers rebuild the recipe
            self.make_shards(stage, self.progress)
        if self.remote and not self.share:
            self.remote.fetch_shards(stage)
        return whole_shards(self.folder, stage)

    def _hold_engines(self, stage: str, shards: StageShards) -> None:
        for model, engine in shards.engines(shards.shards[0]).items():
            self.hold_engine(stage, model, engine)

    def budget(self, tokens: int | None, hours: float | None, *, excluding: str) -> Budget:
        """See ``StoredRun``. In a shard, the budget holds over all shards of the stage."""
        budget = super().budget(tokens, hours, excluding=excluding)
        return budget.shared(self.share.tally.claim, self.share.tally.note) if self.share else budget

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
        self,
        stage: str,
        row_type: type[Row],
        passes: AsyncIterable[Pass[Item, Row]],
        share: Share | None = None,
        **options: Any,
    ) -> StageRows[Row]:
        if share:
            options |= {"part": share.part, "failed_elsewhere": share.tally.failed_elsewhere}
        result = await run_rows(
            self.stage(stage),
            passes,
            row_type,
            concurrency=self.concurrency,
            max_failures=self.max_failures,
            progress=Counted(self.progress, share.tally) if share else self.progress,
            say=self.say,
            **options,
        )
        if share:
            share.tally.finish(result.tokens)
        return result

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
        self._link_to_sibling(stage, config, inputs)
        if self.remote:
            self.remote.fetch(stage)
        if not self.is_done(stage, config, inputs, still_fits):
            for earlier in inputs.keys() & set(layout.STAGES):
                self.check(earlier, in_full=True)
            self._make(stage, config, inputs, make)
        self._forget_checkpoints(stage)
        if self.remote:
            self._store(self.remote, stage)
        discard_shards(self.folder, stage)

    def _store(self, remote: RemoteRun, stage: str) -> None:
        """Copy a complete stage to the remote folder. What a shard links to is there."""
        if not (self.share and self.stage(stage).is_symlink()):
            remote.store(stage)
        if not self.share and stage in layout.SHARDED:
            remote.forget_shards(stage)

    def _link_to_sibling(self, stage: str, config: dict[str, Any], inputs: dict[str, str]) -> None:
        """Link a stage that is not begun to that of a sibling, if a sibling completed it with the same."""
        own = self.stage(stage)
        if own.exists() or own.is_symlink():
            return
        now = json.loads(json.dumps([config, inputs]))
        for other in map(StoredRun, self.siblings):  # its own folder may be among them: the stage is not there
            done = other.manifest(stage)
            if done and [done.config, done.inputs] == now:
                self.check_place()
                there = os.path.relpath(other.stage(stage).resolve(), own.parent.resolve())
                own.symlink_to(there, target_is_directory=True)
                sync(own.parent)
                self.say(f"{stage} is that of {other.folder.name}: it has the same settings and inputs.")
                return

    def _make(
        self, stage: str, config: dict[str, Any], inputs: dict[str, str], make: Callable[[], Output]
    ) -> None:
        before, started = self.manifest(stage), time.monotonic()
        if self.remote:
            self.remote.forget(stage)
        with self._reopened(stage):
            output, records, notes, failures, tokens, elsewhere = make()
        seconds, now = (
            max(elsewhere, time.monotonic() - started),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        seconds += before.seconds if before else 0
        self.check_place()
        self._sync(stage)
        files = digests_in(self.stage(stage))
        self._write_manifest(
            StageManifest(
                stage, config, inputs, output, records, failures, *tokens, seconds, now, notes, versions(),
                commit(), files,
            )
        )  # fmt: skip

    def _sync(self, stage: str) -> None:
        """Wait until a stage's files, and the names of its folders, are on the disk."""
        folder = self.stage(stage)
        sync_tree(folder)
        for above in folder.parents[: len(folder.relative_to(self.folder).parts)]:
            sync(above)

    def _forget_checkpoints(self, stage: str) -> None:
        """Delete that from which the training of a complete stage would have been resumed."""
        if not self.stage(stage).is_symlink():
            discard(self.stage(stage) / layout.CHECKPOINTS)

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
        remove(files[0])
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


def digest_of(names: Iterable[str]) -> str:
    """Return a digest of names and their order, for ``inputs``."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
