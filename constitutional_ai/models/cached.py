"""A model around a model, and a file between them: no identical call is ever paid for twice.

What is kept is what asking again would give again. A score always is. An answer is, at any temperature, where the model
runs in this process: the request's own seed fixes its draws. Of a server it is only at temperature 0: servers take
seeds but few keep to them, so asking again is another draw, and may be readable where the first was not.

What failed is not kept, nor an empty answer, nor a score that is no number. Values are JSON; nothing is unpickled.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from constitutional_ai.errors import DiskFull, InputError
from constitutional_ai.models.load import model_path
from constitutional_ai.models.model import Context, Format, Model, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Completion

Said = TypeVar("Said", Completion, list[float])
TABLES = (
    "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS files (stamp TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID",
)
LOCAL_SCHEMES = ("hf:", "bundled:")
"""Beginnings of names of models that run in this process."""
WAIT_SECONDS = 30.0
"""For another process that writes the same file."""
SHAPES_ANSWERS = {".safetensors", ".json", ".jinja", ".model", ".txt"}
"""Ends of names of the files of a model's folder that its answers depend on."""
COMPLETION, SCORES = TypeAdapter(Completion), TypeAdapter(list[float])


@contextmanager
def cached(model: Model, name: str, file: Path | None, say: Callable[[str], None]) -> Iterator[Model]:
    """``model``, which ``name`` loads, with its calls kept in ``file``; as it is where there is none.

    Scripted models cost nothing, and are not kept either. ``say`` is told when the file is damaged.
    """
    if file is None or isinstance(model, ScriptedModel):
        yield model
        return
    calls = CallFile(file, say)
    try:
        # Another engine rounds otherwise, and may draw otherwise.
        who = f"{type(model).__name__} {model_identity(name, calls)}"
        yield CachedModel(model, calls, who, seeded=name.startswith(LOCAL_SCHEMES))
    finally:
        calls.close()


class CachedModel:
    """Answers from ``calls`` what was asked before; identical requests that are in work at once are asked once."""

    def __init__(self, model: Model, calls: CallFile, who: str, *, seeded: bool) -> None:
        """``who`` tells the model from all others. ``seeded``: a request's seed fixes its answer."""
        self._model, self._calls, self._who, self._seeded = model, calls, who, seeded
        self._asked: dict[str, asyncio.Task[str]] = {}

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def format(self) -> Format:
        return self._model.format

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        if sampling.temperature > 0 and not self._seeded:
            return await self._model.generate(context, sampling)
        how = [sampling.temperature, sampling.max_tokens, sampling.seed, *sampling.stop]
        key = request_key(self._who, self.format, "generate", context, how)

        async def ask() -> str:
            said = await self._model.generate(context, sampling)
            return self._kept(key, COMPLETION.dump_json(said).decode(), worth=bool(said.text))

        # The weights may have had another name when they said it.
        return replace(COMPLETION.validate_json(await self._once(key, ask)), model=self.name)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        key = request_key(self._who, self.format, "score", context, list(continuations))

        async def ask() -> str:
            said = await self._model.score(context, continuations)
            return self._kept(key, json.dumps(said), worth=all(map(math.isfinite, said)))

        return [float(logp) for logp in json.loads(await self._once(key, ask))]

    async def _once(self, key: str, ask: Callable[[], Awaitable[str]]) -> str:
        if (known := self._calls.get(key)) is not None:
            return known
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(ask())
            self._asked[key].add_done_callback(lambda task: self._answered(key, task))
        # Shielded: whoever gives up waiting must not take the answer from the others.
        return await asyncio.shield(self._asked[key])

    def _answered(self, key: str, task: asyncio.Task[str]) -> None:
        del self._asked[key]
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain where nobody waits any more

    def _kept(self, key: str, value: str, *, worth: bool) -> str:
        if worth:
            self._calls.put(key, value)
        return value


def request_key(who: str, fmt: Format, call: str, context: Context, how: Sequence[object]) -> str:
    """sha256 of a request. JSON keeps apart what would run together: a text and a talk, two strings and one."""
    said = context if isinstance(context, str) else [[m.role, m.content] for m in context]
    return hashlib.sha256(json.dumps([who, fmt, call, said, how]).encode()).hexdigest()


class CallFile:
    """The file: SQLite in WAL mode, so that a kill tears nothing and two processes may share it.

    A damaged file is said, put aside as ``….broken``, and begun anew.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._opened()
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}. Set cache= to another file, or to null."
            ) from error
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)

    def get(self, key: str) -> str | None:
        rows = self._do("SELECT value FROM calls WHERE key = ?", key)
        if not rows:
            return None
        check, _, value = rows[0][0].partition(" ")
        return value if check == _check(value) else None  # a page of the file may be damaged unseen

    def put(self, key: str, value: str) -> None:
        self._do("INSERT OR REPLACE INTO calls VALUES (?, ?)", key, f"{_check(value)} {value}")

    def digest_of(self, file: Path) -> str:
        """sha256 of a file, read once as long as its time and size stay."""
        stat = file.stat()
        stamp = f"{file.resolve()} {stat.st_mtime_ns} {stat.st_size}"
        known = self._do("SELECT digest FROM files WHERE stamp = ?", stamp)
        if known:
            return str(known[0][0])
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._do("INSERT OR REPLACE INTO files VALUES (?, ?)", stamp, digest)
        return digest

    def close(self) -> None:
        self._db.close()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        _in_wal_mode(db)
        db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last calls, and damages nothing
        for table in TABLES:
            db.execute(table)
        return db

    def _do(self, statement: str, *values: str) -> list[tuple[str]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)
            return []

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        """Raises what is no damage: a full disk, a file without the right to it, a lock that nobody gives back."""
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise DiskFull(os.strerror(errno.ENOSPC)) from error
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise InputError(
                f"cannot use {self._path}: {error}. Set cache= to another file, or to null for none."
            ) from error
        self._say(f"warning: {self._path} is damaged ({error}): calls are kept in a new one.")
        if hasattr(self, "_db"):
            self._db.close()
        for end in ("-wal", "-shm"):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)
        self._path.replace(self._path.with_name(self._path.name + ".broken"))
        self._db = self._opened()


def _in_wal_mode(db: sqlite3.Connection) -> None:
    """Waits for another process that does the same: SQLite itself waits for every lock but those of this change."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _check(value: str) -> str:
    return hashlib.blake2b(value.encode(), digest_size=8).hexdigest()


def model_identity(name: str, calls: CallFile) -> str:
    """What tells a model from all others: a digest of its files where they are here, else its name.

    A server's name says where it is and what it is called; that its weights were exchanged cannot be seen.
    """
    if not name.startswith(LOCAL_SCHEMES):
        return name
    folder = _folder(name)
    files = sorted(f for f in folder.iterdir() if f.suffix in SHAPES_ANSWERS)
    return hashlib.sha256(json.dumps([[f.name, calls.digest_of(f)] for f in files]).encode()).hexdigest()


def _folder(name: str) -> Path:
    """Of a loaded model's files; the hub's are in its cache by then."""
    path = model_path(name)
    if isinstance(path, Path):
        return path
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(path, "config.json", local_files_only=True)).parent
