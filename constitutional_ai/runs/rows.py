"""Read and write typed JSONL, one frozen record per line, and the other files of a run.

Each row is appended with one unbuffered write, so a killed process loses at most the line it was writing. Rows are
synced every few seconds, so a power cut loses the last ones. Some file systems then leave zeros in their place: rows
end at the first line that is torn or holds one. What follows is cut off when writing resumes, and made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from constitutional_ai.errors import DiskFull, InputError, first_fault, unique_keys
from constitutional_ai.records import Usage, uncounted, usage
from constitutional_ai.runs.durable import PART, sync

Row = TypeVar("Row")
Loaded = TypeVar("Loaded")
Steps = tuple[dict[str, Any], ...]
SYNC_SECONDS = 5.0
"""Rows are on the disk after this time at the latest: what a power cut may cost."""
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def adapter(row_type: type[Row]) -> TypeAdapter[Row]:
    """Return the pydantic adapter of a row type. Each is built once, because that is slow."""
    if row_type not in _ADAPTERS:
        _ADAPTERS[row_type] = TypeAdapter(row_type)
    return _ADAPTERS[row_type]


def read_rows(path: Path, row_type: type[Row]) -> Iterator[Row]:
    """Return an iterator over the rows of a file; an empty one if the file does not exist.

    Raises InputError naming the line that is wrong.
    """
    return (row for row, _ in sized_rows(path, row_type))


def sized_rows(path: Path, row_type: type[Row]) -> Iterator[tuple[Row, int]]:
    """Yield the rows of ``read_rows``, each with the size of its line in bytes."""
    if not path.exists():
        return
    parse = adapter(row_type).validator.validate_json  # 4 µs a row; the adapter's own method takes 5
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n") or b"\0" in line:
                return  # torn by a kill or a power cut; RowWriter will cut it off
            try:
                yield parse(line), len(line)
            except ValidationError as error:
                raise InputError(
                    f"{path}:{number}: {first_fault(error)}. Delete this line, then type the same command."
                ) from error


class StoredRows(Collection[Row]):
    """The rows of a complete file. Each iteration reads the file again, so that a million rows take no memory."""

    def __init__(self, path: Path, row_type: type[Row], check: Callable[[], object] = lambda: None) -> None:
        """``check`` raises an error if the file is not what it was, before any row is read."""
        self._path, self._row_type, self._check = path, row_type, check

    def __iter__(self) -> Iterator[Row]:
        self._check()
        return read_rows(self._path, self._row_type)

    def __contains__(self, row: object) -> bool:
        return any(row == stored for stored in self)

    def __len__(self) -> int:
        self._check()
        with self._path.open("rb") as stream:
            return sum(1 for _ in stream)


class RowWriter(Generic[Row]):
    """A context that appends rows to a file."""

    def __init__(self, path: Path, row_type: type[Row]) -> None:
        self._path = path
        self._dump = adapter(row_type).dump_json

    def __enter__(self) -> RowWriter[Row]:
        cut_torn_line(self._path)
        self._file, self._synced = self._path.open("ab", buffering=0), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        with self._file, naming_full_disk(self._path):
            os.fsync(self._file.fileno())
            sync(self._path.parent)

    def append(self, row: Row) -> int:
        """Append a row and return the size of its line in bytes. A line that does not fit is not left torn."""
        line, start = self._dump(row) + b"\n", self._file.seek(0, os.SEEK_END)
        with naming_full_disk(self._path):
            if self._file.write(line) != len(line):
                self._file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        return len(line)


class RowIndex:
    """An index of the finished records of a stage: their positions in the file, and their costs.

    It grows as records are appended, and does not hold them: a million would take gigabytes; their index takes 0.2 GB.
    """

    def __init__(self, path: Path, row_type: type[Any]) -> None:
        """Read the whole file. Raises InputError naming a line that is wrong."""
        self._path = path
        self._line: dict[str, int] = {}
        self._starts = array("q", [0])
        self._prompt_tokens, self._completion_tokens = array("q"), array("q")
        self.uncounted: str | None = None
        """A model that did not say how many tokens a record took; None if all are counted."""
        for row, size in sized_rows(path, row_type):
            self.add(row.id, size, usage(row))
            self.uncounted = self.uncounted or uncounted(row)

    def __contains__(self, name: str) -> bool:
        return name in self._line

    def __len__(self) -> int:
        return len(self._line)

    def add(self, name: str, size: int, tokens: Usage) -> None:
        """Add the record ``name``, whose line of ``size`` bytes was appended to the file."""
        self._line[name] = len(self._prompt_tokens)
        self._starts.append(self._starts[-1] + size)
        self._prompt_tokens.append(tokens.prompt_tokens)
        self._completion_tokens.append(tokens.completion_tokens)

    @property
    def tokens(self) -> int:
        """All tokens that the records cost."""
        return sum(self._prompt_tokens) + sum(self._completion_tokens)

    @property
    def dearest(self) -> int | None:
        """Tokens of the most expensive record; None without records."""
        return max(map(int.__add__, self._prompt_tokens, self._completion_tokens), default=None)

    def sort_file(self, names: Iterable[str]) -> Usage:
        """Rewrite the file with only the records ``names``, in this order, and return the tokens that they cost.

        The index is invalid afterwards.
        """
        lines = array("q", (line for line in map(self._line.get, names) if line is not None))
        if len(lines) != len(self._prompt_tokens) or any(map(int.__ne__, lines, range(len(lines)))):
            self._write(lines)
        return Usage(
            sum(map(self._prompt_tokens.__getitem__, lines)),
            sum(map(self._completion_tokens.__getitem__, lines)),
        )

    def _write(self, lines: Iterable[int]) -> None:
        with replacing(self._path) as scratch, self._path.open("rb") as source, scratch.open("wb") as stream:
            for line in lines:
                start = self._starts[line]
                stream.write(os.pread(source.fileno(), self._starts[line + 1] - start, start))


def write_rows(path: Path, row_type: type[Row], rows: Iterable[Row]) -> None:
    """Write a file of rows, whole or not at all."""
    dump = adapter(row_type).dump_json
    with replacing(path) as scratch, scratch.open("wb") as stream:
        stream.writelines(dump(row) + b"\n" for row in rows)


def print_rows(row_type: type[Row], rows: Iterable[Row]) -> None:
    """Print rows on standard output as they are made, a line of JSON in ASCII each: no text can move a cursor."""
    dump = adapter(row_type).dump_json
    for row in rows:
        sys.stdout.write(json.dumps(json.loads(dump(row))) + "\n")


def cut_torn_line(path: Path) -> None:
    """Truncate a file after its last line break before any zero byte, which JSON never holds."""
    if path.exists() and path.stat().st_size:  # an empty file cannot be mapped
        with path.open("rb+") as stream:
            with mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
                zero = content.find(b"\0")
                end = content.rfind(b"\n", 0, zero if zero >= 0 else len(content)) + 1
            stream.truncate(end)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch file that replaces ``path``, on the disk, if the block succeeds. Raises DiskFull."""
    scratch = path.with_name(path.name + PART)
    with naming_full_disk(path):
        try:
            yield scratch
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        sync(scratch)
        scratch.replace(path)
        sync(path.parent)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn the error of a full disk into DiskFull, which names the file."""
    try:
        yield
    except Exception as error:
        # safetensors and torch wrap the system's error and keep only its text.
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise DiskFull(
            f"the disk is full while writing {path}. Everything before is kept: "
            "free some space, then type the same command."
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def digest_file(path: Path) -> str:
    """Return the first 16 hex digits of a file's sha256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def load_json(path: Path, kind: type[Loaded]) -> Loaded | None:
    """Return the content of a run's JSON file as a ``kind``; None if there is no file, or a power cut left no content.

    Raises InputError.
    """
    if path.is_dir():
        raise InputError(
            f"{path} is a folder where a file should be. Move it away, then type the same command."
        )
    if not path.is_file() or not (content := path.read_bytes()).strip(b"\0"):
        return None
    try:
        json.loads(content, object_pairs_hook=unique_keys)  # pydantic would take the last of two
        return adapter(kind).validate_json(content)
    except (ValueError, RecursionError) as error:
        why = first_fault(error) if isinstance(error, ValidationError) else error
        raise InputError(f"{path} cannot be read: {why}. Make its stage again with --redo.") from error


def read_steps(path: Path) -> Steps:
    """Return the logged steps of a training, without a last line that is still being written."""
    return tuple(read_rows(path, dict[str, Any]))


def text_or_empty(path: Path) -> str:
    """Return the text of a file; ``""`` if there is no file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
