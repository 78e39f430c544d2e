"""The share of a stage that a process makes: a shard, with links to the earlier stages of the whole run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from constitutional_ai.errors import InputError
from constitutional_ai.records import Usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.durable import discard, sync
from constitutional_ai.runs.guarded_run import GuardedRun
from constitutional_ai.runs.provenance import has_records
from constitutional_ai.runs.remote_run import RemoteRun
from constitutional_ai.runs.runner import Progress
from constitutional_ai.runs.shards import Part, Shard, shards_of
from constitutional_ai.runs.stored_run import StoredRun
from constitutional_ai.runs.tally import Tally


@dataclass(frozen=True)
class Share:
    """One shard of one stage of a run."""

    run: Path
    """The folder of the whole run."""
    stage: str
    shard: Shard
    remote: RemoteRun | None = None
    """The place in which the complete stages of the whole run are kept as well; None unless it is remote."""

    @property
    def folder(self) -> Path:
        """The folder of the shard, a run directory."""
        return self.shard.folder(self.run)

    @cached_property
    def part(self) -> Part:
        """The shard's items."""
        return Part(self.shard)

    @cached_property
    def tally(self) -> Tally:
        """The counts of all shards."""
        return Tally(self.run, self.stage, self.shard, apart=self.remote is not None)

    @property
    def notes(self) -> dict[str, Any]:
        """Keys for ``notes`` in the shard's ``stage.json``."""
        return {"shard": str(self.shard), "items": self.part.total}

    @property
    def is_merged(self) -> bool:
        """Whether the whole run has the stage already."""
        return StoredRun(self.run).manifest(self.stage) is not None

    def fetch(self) -> None:
        """Copy earlier stages, and this one, from the remote folder where they are complete there.

        One shard of a machine does it, and the others wait.
        """
        if self.remote:
            with (self.run / layout.FETCHING).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self.remote.fetch_about()
                for stage in (*layout.earlier(self.stage), self.stage):
                    self.remote.fetch(stage)

    def check(self) -> None:
        """Raise InputError if the stage cannot be made in shards, or not in so many."""
        if self.stage not in layout.SHARDED:
            raise InputError(
                f"{self.stage} is not made in shards. Leave out --shard, or give --until one of "
                f"{', '.join(layout.SHARDED)}."
            )
        refuse_unsharded(StoredRun(self.run), self.stage)
        present = shards_of(self.run, self.stage)
        if present and (of := present[0].of) != self.shard.of:
            raise InputError(
                f"{self.stage} was begun in {of} shards, not {self.shard.of}. Type --shard I/{of}, or delete "
                f"{self.run / layout.SHARDS}."
            )

    def link_earlier_stages(self, own: GuardedRun, left_out: Collection[str]) -> None:
        """Link the complete stages of the whole run before this one, in the shard's folder.

        Raises InputError if one is not complete that the recipe has not ``left_out``.
        """
        whole = StoredRun(self.run)
        before = {stage: whole.manifest(stage) for stage in layout.earlier(self.stage)}
        if missing := [stage for stage in before if not before[stage] and stage not in left_out]:
            present = shards_of(self.run, missing[0])
            again = f"cai merge {self.run}" if present else f"cai run RECIPE --until {missing[-1]}"
            raise InputError(
                f"a shard of {self.stage} needs {missing[0]}, which is not complete. Type: {again}"
            )
        own.write_started_stages(
            {**own.started_stages(), **{k: v for k, v in whole.started_stages().items() if before.get(k)}}
        )
        for stage in (stage for stage, manifest in before.items() if manifest):
            link, place = own.stage(stage), self.run / stage
            if not link.is_symlink():
                discard(link)  # its own records of that stage, which are merged
                link.symlink_to(os.path.relpath(place, self.folder), target_is_directory=True)
        sync(self.folder)


@dataclass(frozen=True)
class Counted:
    """A display of progress that also writes the shard's counts."""

    shown: Progress
    tally: Tally

    def start(self, stage: str, done: int, total: int) -> None:
        """See ``Progress``."""
        self.tally.start(done, total)
        self.shown.start(stage, done, total)

    def advance(self, stage: str, tokens: Usage, *, failed: bool) -> None:
        """See ``Progress``."""
        self.tally.advance(tokens, failed=failed)
        self.shown.advance(stage, tokens, failed=failed)

    def finish(self, stage: str) -> None:
        """See ``Progress``."""
        self.shown.finish(stage)


def refuse_unsharded(run: StoredRun, stage: str) -> None:
    """Raise InputError if a stage has records that are of no shard, and is not complete.

    Beside shards there may be those of a merge that was killed, which is done again.
    """
    if has_records(run.stage(stage)) and not run.manifest(stage) and not shards_of(run.folder, stage):
        raise InputError(
            f"{stage} in {run.folder} was begun without shards. Continue it without --shard and --on, or pass "
            f"--redo {stage}."
        )
