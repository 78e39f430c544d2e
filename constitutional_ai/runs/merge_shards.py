"""Merge the shards of a stage: the records of one process, in the order of the items, byte for byte.

Every shard says which items it had, and where they stand among all. Together they must be all items, each once; what
does not fit is refused. Records are copied line by line, so that a million take no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from heapq import merge as merge_sorted
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from typing_extensions import TypedDict

from constitutional_ai.errors import InputError, StageChanged
from constitutional_ai.records import Failure, Usage, total
from constitutional_ai.runs import layout
from constitutional_ai.runs.guarded_run import ENGINES, PACKAGE
from constitutional_ai.runs.links import check_links
from constitutional_ai.runs.manifest import StageManifest, difference
from constitutional_ai.runs.rows import StoredRows, adapter, read_rows, replacing, write_rows
from constitutional_ai.runs.runner import HasId, StageRows, all_failed, too_many
from constitutional_ai.runs.shards import Shard, ShardItem, shards_of
from constitutional_ai.runs.stored_run import StoredRun

Row = TypeVar("Row", bound=HasId)
BESIDE = (layout.GATE, layout.GATE_FAILURES)
"""Files that every shard makes whole, beside its records; the first shard's are kept."""


class _Id(TypedDict):
    id: str


class _Line(NamedTuple):
    """An item of a shard, and the line of its record; None where the record failed."""

    place: int
    id: str
    line: bytes | None
    shard: Shard


@dataclass(frozen=True)
class StageShards:
    """All shards of one stage of a run."""

    run: Path
    stage: str
    shards: tuple[Shard, ...]
    manifests: Mapping[Shard, StageManifest]
    failures: dict[str, Failure] = field(default_factory=dict)

    def folder(self, shard: Shard) -> Path:
        """Return the folder of the stage in a shard."""
        return shard.folder(self.run) / self.stage

    def check(self, config: dict[str, Any], inputs: dict[str, str], source: str) -> None:
        """Raise StageChanged if a shard was made with other settings, inputs or software, and InputError if edited."""
        now = {"config": config, "inputs": inputs}
        for shard, manifest in self.manifests.items():
            check_links(shard.folder(self.run))
            StoredRun(shard.folder(self.run)).check(self.stage, in_full=True)
            then = {"config": manifest.config, "inputs": manifest.inputs}
            if changed := difference(self.stage, then, now, source):
                raise StageChanged(f"shard {shard}: {changed} {self._again(shard)}")
        self._agree({shard: m.versions.get(PACKAGE) for shard, m in self.manifests.items()}, "this package")
        self._agree({shard: self.engines(shard) for shard in self.shards}, "an engine")

    def engines(self, shard: Shard) -> dict[str, str]:
        """Return the engines that ran the models of a shard, by model."""
        entry = StoredRun(shard.folder(self.run)).started_stages().get(self.stage, {})
        return dict(entry.get(ENGINES, {}))

    def _agree(self, values: Mapping[Shard, Any], what: str) -> None:
        first = self.shards[0]
        for shard, value in values.items():
            if value != values[first]:
                raise StageChanged(
                    f"shards {first} and {shard} of {self.stage} were made with different versions of {what}: "
                    f"{values[first]} and {value}. {self._again(shard)}"
                )

    def _again(self, shard: Shard) -> str:
        return f"Delete {self.folder(shard)}, then make this shard again."

    def merge(self, row_type: type[Row], max_failures: int) -> StageRows[Row]:
        """Write the files of the stage to the whole run. Raises InputError and TooManyFailures."""
        out = self.run / self.stage
        out.mkdir(parents=True, exist_ok=True)
        for shard in self.shards:
            self.failures.update(
                {one.id: one for one in read_rows(self.folder(shard) / layout.FAILURES, Failure)}
            )
        with replacing(out / layout.RECORDS) as scratch, scratch.open("wb") as stream:
            failed = self._copy(stream)
        self._check_failures(failed, max_failures)
        self._write_rest(out, failed)
        known = [(m.prompt_tokens, m.completion_tokens) for m in self.manifests.values()]
        tokens = total(Usage(read or 0, written or 0) for read, written in known)
        counted = all(None not in pair for pair in known)
        return StageRows(StoredRows(out / layout.RECORDS, row_type), len(failed), tokens, counted)

    def _copy(self, stream: BinaryIO) -> list[Failure]:
        """Copy the records in the order of their items, and return the failures in that order."""
        failed, place = [], -1
        for place, item in enumerate(merge_sorted(*map(self._lines, self.shards), key=lambda item: item.place)):
            if item.place != place or not item.shard.holds(item.id):
                raise InputError(
                    f"shard {item.shard} of {self.stage} does not fit the others: it has item {item.place} "
                    f"('{item.id}') where item {place} belongs. {self._again(item.shard)}"
                )
            if item.line is not None:
                stream.write(item.line)
            elif item.id in self.failures:
                failed.append(self.failures[item.id])
            else:
                raise InputError(
                    f"shard {item.shard} of {self.stage} has no record of '{item.id}'. {self._again(item.shard)}"
                )
        for shard, manifest in self.manifests.items():
            if (expected := manifest.notes.get("items")) != place + 1:
                raise InputError(
                    f"shard {shard} of {self.stage} is one of {expected} items, and all shards together have "
                    f"{place + 1}. {self._again(shard)}"
                )
        return failed

    def _lines(self, shard: Shard) -> Iterator[_Line]:
        """Yield the items of a shard in their order, each with the line of its record."""
        file, parse = self.folder(shard) / layout.RECORDS, adapter(_Id).validator.validate_json
        with file.open("rb") as stream:
            line = stream.readline()
            for item in read_rows(self.folder(shard) / layout.ITEMS, ShardItem):
                if line and parse(line)["id"] == item.id:
                    yield _Line(item.place, item.id, line, shard)
                    line = stream.readline()
                else:
                    yield _Line(item.place, item.id, None, shard)
        if line:
            raise InputError(f"{file} has a record that is none of the shard's. {self._again(shard)}")

    def _check_failures(self, failed: list[Failure], max_failures: int) -> None:
        file = self.folder(self.shards[0]) / layout.FAILURES
        if failed and not (self.run / self.stage / layout.RECORDS).stat().st_size:
            raise all_failed(self.stage, failed, file)
        if len(failed) > max_failures:
            raise too_many(len(failed), self.stage, failed[-1], file)

    def _write_rest(self, out: Path, failed: list[Failure]) -> None:
        if failed:
            write_rows(out / layout.FAILURES, Failure, failed)
        for name in (layout.LOST, layout.GATE_LOST):
            rows = [row for shard in self.shards for row in read_rows(self.folder(shard) / name, Usage)]
            if rows:
                write_rows(out / name, Usage, rows)
        for name in BESIDE:
            if (first := self.folder(self.shards[0]) / name).exists():
                with replacing(out / name) as scratch:
                    scratch.write_bytes(first.read_bytes())

    @property
    def seconds(self) -> float:
        """Time in which at least one shard was at work, as far as their last sessions tell."""
        spans = [(datetime.fromisoformat(m.finished).timestamp(), m.seconds) for m in self.manifests.values()]
        busy, until = 0.0, float("-inf")
        for start, end in sorted((finished - seconds, finished) for finished, seconds in spans):
            busy, until = busy + max(0.0, end - max(start, until)), max(end, until)
        return busy


def whole_shards(run: Path, stage: str) -> StageShards | None:
    """Return the shards of a stage; None if it has none. Raises InputError if they are not all complete."""
    shards = shards_of(run, stage)
    if not shards:
        return None
    every = Shard.all_of(shards[0].of)
    known = {shard: StoredRun(shard.folder(run)).manifest(stage) for shard in every if shard in shards}
    if missing := [str(shard) for shard in every if not known.get(shard)]:
        shown = ", ".join(missing[:8]) + (" and others" if missing[8:] else "")
        raise InputError(
            f"{stage} is made in {len(every)} shards, and {shown} {'is' if len(missing) == 1 else 'are'} not complete. "
            f"Type: cai run RECIPE --shard {missing[0]} --until {stage}"
        )
    return StageShards(run, stage, tuple(every), {shard: m for shard, m in known.items() if m})
