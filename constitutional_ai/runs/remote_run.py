"""Keep the complete stages of a run in a remote folder as well, and copy them from there where a machine lacks them.

::

    s3://bucket/runs/mine/
      run.json  recipe.yaml  constitution.yaml
      01-responses/  records.jsonl  stage.json
      shards/03-of-16/02-revisions/  records.jsonl  items.jsonl  stage.json

What grows, the lock and the cache of calls stay in the working folder of each machine. Of a stage
``stage.json`` is copied last and deleted first, so that a stage is complete there or not there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from constitutional_ai.errors import InputError
from constitutional_ai.runs import layout
from constitutional_ai.runs.about import About, read_about
from constitutional_ai.runs.durable import PART, discard, sync, sync_tree
from constitutional_ai.runs.remote_folder import RemoteFolder, check_address, is_remote, working_folder
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.shards import Shard, is_locked, named
from constitutional_ai.runs.stored_run import StoredRun

ABOUT = (layout.RUN, layout.RECIPE, layout.CONSTITUTION)
LOCAL = {layout.MANIFEST, layout.COUNTS}
"""Files of a stage that are not copied with the others."""


@dataclass(frozen=True)
class RemoteRun:
    """A run's folder on this machine, and the place of its complete stages. Every method raises InputError."""

    folder: Path
    place: RemoteFolder
    say: Callable[[str], None]

    # -- from there

    def fetch_about(self) -> None:
        """Copy ``run.json`` and the files beside it, unless this machine has them or there is no run yet."""
        if (self.folder / layout.RUN).exists():
            return
        if self.place.read(layout.RUN) is None:
            if set(self.place.names()) - {layout.SHARDS}:
                raise InputError(
                    f"{self.place.address} holds files that are not part of a run. Set out= to another place."
                )
            return
        with self._scratch() as scratch:
            self._take_about(scratch, self._about_there(scratch))

    def fetch(self, stage: str) -> None:
        """Copy a stage that is complete there and not on this machine, and check it against its digests.

        A half-made one here is replaced. A link is left alone.
        """
        own = self.folder / stage
        there = None if own.is_symlink() else self._manifest_there(stage)
        here = self._manifest_here(stage)
        if there is None or there == here:
            return
        if here is not None:
            raise InputError(self._differs(stage))
        with self._scratch() as scratch:
            self._download(stage, there, scratch)
            about = self._about_there(scratch)
            discard(own)
            (scratch / stage).rename(own)
            sync(self.folder)
            self._take_about(scratch, about, stage)
        self.say(f"{stage} is complete in {self.place.address}, and was copied to {self.folder}.")

    def fetch_shards(self, stage: str) -> None:
        """Copy the shards of a stage that are complete there and not on this machine."""
        for one in self._shards():
            there = one._manifest_there(stage)
            if there is None or there == one._manifest_here(stage):
                continue
            if is_locked(one.folder / layout.LOCK):
                raise InputError(f"another process is working on {one.folder}. Wait for it, or stop it.")
            one.folder.mkdir(parents=True, exist_ok=True)
            one.fetch_about()
            one.fetch(stage)

    # -- to there

    def store_about(self) -> None:
        """Copy ``run.json``, the recipe and the constitution there."""
        for name in ABOUT:
            if (file := self.folder / name).is_file():
                self.place.write(name, file.read_bytes())

    def store(self, stage: str) -> None:
        """Copy a complete stage there, unless it is there. A link is followed."""
        here, there = self._manifest_here(stage), self._manifest_there(stage)
        if here is None or here == there:
            return
        if there is not None:
            raise InputError(self._differs(stage))
        self.store_about()
        for file in sorted(self._files_of(stage)):
            self.place.put(f"{stage}/{file.relative_to(self.folder / stage).as_posix()}", file)
        self.place.write(f"{stage}/{layout.MANIFEST}", here)

    def forget(self, *stages: str) -> None:
        """Delete stages there, the last first."""
        for stage in reversed(stages):
            self.place.remove(f"{stage}/{layout.MANIFEST}")
            for name in self.place.below(stage).files():
                self.place.remove(f"{stage}/{name}")

    def forget_shards(self, stage: str) -> None:
        """Delete the shards of a stage there."""
        for one in self._shards():
            one.forget(stage)

    # --

    def shard(self, shard: Shard) -> RemoteRun:
        """Return the folders of a shard."""
        place = self.place.below(layout.SHARDS, shard.name)
        return RemoteRun(shard.folder(self.folder), place, lambda text: None)

    def _shards(self) -> Iterator[RemoteRun]:
        for name in self.place.below(layout.SHARDS).names():
            if shard := named(name):
                yield self.shard(shard)

    def _manifest_here(self, stage: str) -> bytes | None:
        file = self.folder / stage / layout.MANIFEST
        return file.read_bytes() if file.is_file() else None

    def _manifest_there(self, stage: str) -> bytes | None:
        """Return the bytes of ``stage.json`` there; None if there is none, or a killed process left half of it."""
        text = self.place.read(f"{stage}/{layout.MANIFEST}")
        try:
            return text if text is not None and isinstance(json.loads(text), dict) else None
        except (ValueError, RecursionError):
            return None

    def _download(self, stage: str, manifest: bytes, scratch: Path) -> None:
        for name in self.place.below(stage).files():
            if name not in LOCAL:
                self.place.get(f"{stage}/{name}", scratch / stage / name)
        (scratch / stage).mkdir(exist_ok=True)
        (scratch / stage / layout.MANIFEST).write_bytes(manifest)
        try:
            StoredRun(scratch).check(stage, in_full=True)
        except InputError as error:
            raise InputError(
                f"{stage} in {self.place.address} is not what its {layout.MANIFEST} says: a file was changed or is "
                f"missing. Restore it, or make the stage again with --redo {stage}."
            ) from error
        sync_tree(scratch)

    def _about_there(self, scratch: Path) -> About:
        """Copy ``run.json`` and the files beside it to ``scratch``, and return what the first says."""
        for name in ABOUT:
            if (text := self.place.read(name)) is not None:
                (scratch / name).write_bytes(text)
        return read_about(scratch)

    def _take_about(self, scratch: Path, there: About, stage: str | None = None) -> None:
        """Write the files beside ``run.json``, and of that what it says of ``stage``; all of it without one."""
        here = read_about(self.folder)
        entries = {
            k: v for k, v in there.get("stages", {}).items() if stage is None or k.split("/")[0] == stage
        }
        about = {**there, **here, "stages": {**here.get("stages", {}), **entries}}
        for name in ABOUT[1:]:
            if (scratch / name).is_file():
                write_atomically(self.folder / name, (scratch / name).read_text(encoding="utf-8"))
        write_atomically(self.folder / layout.RUN, json.dumps(about, indent=1) + "\n")

    def _files_of(self, stage: str) -> Iterator[Path]:
        """Yield the files of a stage that are copied."""
        own = self.folder / stage
        for path in own.rglob("*"):
            below = path.relative_to(own)
            unfinished = path.suffix == PART or layout.CHECKPOINTS in below.parts
            if path.is_file() and not unfinished and str(below) not in LOCAL:
                yield path

    def _differs(self, stage: str) -> str:
        return (
            f"{stage} in {self.folder} is another than in {self.place.address}: it was made on two machines. Delete "
            f"{self.folder / stage} to take that one, or make it again with --redo {stage}."
        )

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Yield an empty folder, on the disk of the run."""
        folder = self.folder / f"fetched{PART}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remote_run(out: str, say: Callable[[str], None]) -> RemoteRun | None:
    """Return the remote folder of a run, with its working folder here; None where ``out`` is a path."""
    return RemoteRun(working_folder(out), RemoteFolder(check_address(out)), say) if is_remote(out) else None
