"""An index of all records of a run: where each lies in its file, and what one can search it by.

It holds no text. Files are read once, and what is appended to them later is read when the index is refreshed, so that a
run can be viewed while it is still going on. It never writes.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from constitutional_ai.errors import InputError, first_fault
from constitutional_ai.records import Answer, Failure
from constitutional_ai.report.show.record_history import FILES
from constitutional_ai.report.view.facets import Facets, facets_of, prompt_of
from constitutional_ai.runs import layout
from constitutional_ai.runs.disk_faults import naming_disk_faults
from constitutional_ai.runs.rows import adapter
from constitutional_ai.runs.stored_run import StoredRun

SUITE_ANSWERS = f"{layout.SUITE}/answers"
SOURCES: tuple[tuple[str, str, type[Any]], ...] = (
    *FILES,
    (SUITE_ANSWERS, layout.RECORDS, Answer),
    *((stage, layout.FAILURES, Failure) for stage in (*layout.STAGES, SUITE_ANSWERS)),
    (layout.PREFERENCE_LABELS, layout.GATE_FAILURES, Failure),
)
"""Stage, file and type of all records that are indexed."""


class Entry(NamedTuple):
    """A record in the index."""

    source: int
    """Number of its file in ``SOURCES``."""
    start: int
    """Position of its line in the file, in bytes, as in the next field."""
    size: int
    id: str
    prompt: str
    """Id of its prompt; for a failure, the id of the failure."""
    facets: Facets

    @property
    def mark(self) -> str:
        """What names it on a page: the number of its file and its position there."""
        return f"r{self.source}-{self.start}"

    @property
    def stage(self) -> str:
        return SOURCES[self.source][0]

    @property
    def file(self) -> str:
        return SOURCES[self.source][1]


@dataclass
class _File:
    """One file of records, as far as it is indexed."""

    number: int
    path: Path
    entries: list[Entry] = field(default_factory=list)
    end: int = 0
    """Position after the last whole line that was read."""
    stamp: tuple[int, int, int] | None = None
    last: int = 0
    """Hash of the last line that was read, to notice that the file is another."""
    fault: str | None = None
    """What is wrong with the next line."""

    def refresh(self) -> bool:
        """Read what is new. Return whether anything is."""
        stamp = _stamp(self.path)
        if stamp == self.stamp:
            return False
        before, self.stamp = self.stamp, stamp
        if stamp is None:
            self.entries, self.end, self.fault = [], 0, None
            return True
        with self.path.open("rb") as stream:
            grown = before is not None and before[0] == stamp[0] and before[1] < stamp[1]
            if not (grown and self._still_there(stream.fileno())):
                self.entries, self.end = [], 0
            stream.seek(self.end)
            self._read(stream)
        return True

    def _still_there(self, number: int) -> bool:
        if not self.entries:
            return True
        last = self.entries[-1]
        return hash(os.pread(number, last.size, last.start)) == self.last

    def _read(self, lines: Iterable[bytes]) -> None:
        parse, self.fault = adapter(SOURCES[self.number][2]).validator.validate_json, None
        for line in lines:
            if not line.endswith(b"\n") or b"\0" in line:
                return  # still being written, or torn by a kill
            try:
                record = parse(line)
            except ValidationError as error:
                self.fault = _damaged(self.path, len(self.entries) + 1, error)
                return
            prompt = prompt_of(record)
            owner = prompt.id if prompt else record.id
            self.entries.append(Entry(self.number, self.end, len(line), record.id, owner, facets_of(record)))
            self.end, self.last = self.end + len(line), hash(line)


def _damaged(path: Path, number: int, error: ValidationError) -> str:
    return f"{path}:{number}: {first_fault(error)}. The records from this line on are not shown."


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever a file does; None if there is no file."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


class RecordIndex:
    """All records of a run, by file and by prompt. ``refresh`` it before each use."""

    def __init__(self, run: StoredRun) -> None:
        """Index what the run has now."""
        self.run = run
        self._files = [_File(n, run.stage(stage) / file) for n, (stage, file, _) in enumerate(SOURCES)]
        self._manifests: dict[str, tuple[int, int, int] | None] = {}
        self._changed: dict[str, str] = {}
        self.version = 0
        """Grows whenever the records do, or are others."""
        self.by_prompt: dict[str, list[Entry]] = {}
        """Records by the id of their prompt, stage by stage. Those of a failure are with the prompt that it is of."""
        self.refresh()

    def __iter__(self) -> Iterator[Entry]:
        return (entry for file in self._files for entry in file.entries)

    def __len__(self) -> int:
        return sum(len(file.entries) for file in self._files)

    def refresh(self) -> None:
        """Read what was appended since, and read again what was replaced. Raises InputError for a fault of the disk."""
        with naming_disk_faults(self.run.folder):
            moved = [file.refresh() for file in self._files]
            for stage in dict.fromkeys(stage for stage, _, _ in SOURCES):
                manifest = _stamp(self.run.stage(stage) / layout.MANIFEST)
                touched = any(
                    new and SOURCES[file.number][0] == stage
                    for file, new in zip(self._files, moved, strict=True)
                )
                if touched or self._manifests.get(stage) != manifest:
                    self._manifests[stage] = manifest
                    self._check(stage)
            if any(moved):
                self.version += 1
                self._sort_by_prompt()

    def _check(self, stage: str) -> None:
        self._changed.pop(stage, None)
        try:
            self.run.check(stage)
        except InputError as error:
            self._changed[stage] = str(error)

    def _sort_by_prompt(self) -> None:
        by_prompt: dict[str, list[Entry]] = defaultdict(list)
        for entry in self:
            if entry.facets.kind:
                by_prompt[entry.prompt].append(entry)
        for entry in self:
            if not entry.facets.kind:
                by_prompt[_owner(entry.id, by_prompt)].append(entry)
        self.by_prompt = dict(by_prompt)

    @property
    def faults(self) -> list[str]:
        """Sentences about files that are damaged, or were changed after their stage was complete."""
        return [file.fault for file in self._files if file.fault] + list(self._changed.values())

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the number of records by stage and file."""
        return Counter({SOURCES[file.number][:2]: len(file.entries) for file in self._files if file.entries})

    def line(self, entry: Entry) -> bytes:
        """Return the line of a record."""
        with naming_disk_faults(self.run.folder), self._files[entry.source].path.open("rb") as stream:
            return os.pread(stream.fileno(), entry.size, entry.start)

    def record(self, entry: Entry) -> Any:
        """Return a record. Raises InputError if its file was replaced since the index was refreshed."""
        try:
            return adapter(SOURCES[entry.source][2]).validator.validate_json(self.line(entry))
        except ValidationError as error:
            raise InputError(
                f"{self._files[entry.source].path} has just been replaced. Load this page again."
            ) from error

    def lines(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield each record with its line, opening each file once if the entries are in the order of the index."""
        number, stream = -1, None
        try:
            for entry in entries:
                if entry.source != number:
                    if stream:
                        stream.close()
                    number, stream = entry.source, self._files[entry.source].path.open("rb")
                assert stream is not None
                yield entry, os.pread(stream.fileno(), entry.size, entry.start)
        finally:
            if stream:
                stream.close()


def _owner(failure: str, prompts: dict[str, Any]) -> str:
    """Return the id of the prompt that a failed record is of, by the lineage in its id; else the id itself."""
    name = failure
    while name not in prompts and "." in name:
        name = name.rpartition(".")[0]
    return name if name in prompts else failure
