"""Cache the calls of a model in a file, so that no identical call is made twice.

A call is cached if repeating it would give the same result: every score, every reading of a question's options, every
completion at temperature 0, and every completion of a model in this process, where the request's seed fixes it.

Few servers honour seeds. What they draw at a temperature is cached until the record that needs it is written, or fails
by it (``runs/meter.py``). So nothing that was paid for is asked for again after a kill, a record that failed by an
unreadable answer gets a new draw, and so does a stage that is made again. Outside of a record every draw is new.

Failures, empty completions that another try may mend, and scores that are not finite are not cached. Values are JSON;
nothing is unpickled.
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

from pydantic import TypeAdapter

from constitutional_ai.errors import DiskFull, InputError
from constitutional_ai.models.abilities import DecisionQuestion, Reading, ReadsLetters, close, decider
from constitutional_ai.models.load import LOCAL_SCHEMES, model_path
from constitutional_ai.models.model import Context, Format, Model, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Completion, Conversation
from constitutional_ai.runs.meter import may_be_forgotten

TABLES = (
    "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS files (stamp TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID",
)
WAIT_SECONDS = 30.0
"""How long to wait for another process that writes the same file."""
IDENTIFYING = {".safetensors", ".json", ".jinja", ".model", ".txt"}
"""Suffixes of the files in a model's folder that its answers depend on."""
COMPLETION, READING = TypeAdapter(Completion), TypeAdapter(Reading)


@contextmanager
def cached(model: Model, name: str, file: Path | None, say: Callable[[str], None]) -> Iterator[Model]:
    """Yield ``model``, which was loaded as ``name``, with its calls cached in ``file``.

    Nothing is cached without a file, or for scripted models, which cost nothing. ``say`` receives a warning when the
    file is damaged.
    """
    if file is None or isinstance(model, ScriptedModel):
        yield model
        return
    calls = CallFile(file, say)
    try:
        # The identity includes the engine, because another engine rounds differently and may sample differently.
        identity = f"{type(model).__name__} {model_identity(name, calls)}"
        kind = CachedLetters if isinstance(model, ReadsLetters) else CachedModel
        yield kind(model, calls, identity, seeded=name.startswith(LOCAL_SCHEMES))
    finally:
        calls.close()


class CachedModel:
    """A model that answers repeated requests from a file.

    Identical concurrent requests are sent once.
    """

    def __init__(self, model: Model, calls: CallFile, identity: str, *, seeded: bool) -> None:
        """Wrap ``model``. ``seeded`` says whether the seed of a request fixes its completion."""
        self._model, self._calls, self._identity, self._seeded = model, calls, identity, seeded
        self._in_progress: dict[str, asyncio.Task[str]] = {}
        self.reused = 0
        """Number of requests that were answered from the file."""

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def format(self) -> Format:
        return self._model.format

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        how = [sampling.temperature, sampling.max_tokens, sampling.seed, *sampling.stop]
        how += [{"thinking": sampling.thinking}] if sampling.thinking else []
        key = request_key(self._identity, self.format, "generate", context, how)
        is_drawn = sampling.temperature > 0 and not self._seeded
        if is_drawn and not may_be_forgotten(lambda: self._calls.forget(key)):
            return await self._model.generate(context, sampling)

        async def call() -> str:
            completion = await self._model.generate(context, sampling)
            kept = COMPLETION.dump_json(completion).decode()
            return self._keep(key, kept, when=is_drawn or bool(completion.text))

        # The weights may have had another name when they gave this completion.
        return replace(COMPLETION.validate_json(await self._once(key, call)), model=self.name)

    async def close(self) -> None:
        """See ``Closes``."""
        await close(self._model)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        key = request_key(self._identity, self.format, "score", context, list(continuations))

        async def call() -> str:
            scores = await self._model.score(context, continuations)
            return self._keep(key, json.dumps(scores), when=all(map(math.isfinite, scores)))

        return [float(logp) for logp in json.loads(await self._once(key, call))]

    async def decide(self, state: str, question: DecisionQuestion) -> Reading:
        """See ``Decides``. Raises ModelError if the model answers no decision questions."""
        how = [question.kind, question.text, *question.options]
        key = request_key(self._identity, self.format, "decide", state, how)
        return await self._reading(key, lambda: decider(self._model).decide(state, question))

    async def _reading(self, key: str, read: Callable[[], Awaitable[Reading]]) -> Reading:
        async def call() -> str:
            return self._keep(key, READING.dump_json(await read()).decode(), when=True)

        return READING.validate_json(await self._once(key, call))

    async def _once(self, key: str, call: Callable[[], Awaitable[str]]) -> str:
        if (value := self._calls.get(key)) is not None:
            self.reused += 1
            return value
        if key not in self._in_progress:
            self._in_progress[key] = asyncio.ensure_future(call())
            self._in_progress[key].add_done_callback(lambda task: self._finish(key, task))
        # Shielded: a caller that is cancelled must not take the answer from the others.
        return await asyncio.shield(self._in_progress[key])

    def _finish(self, key: str, task: asyncio.Task[str]) -> None:
        del self._in_progress[key]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not complain when nobody awaits it any more

    def _keep(self, key: str, value: str, *, when: bool) -> str:
        if when:
            self._calls.put(key, value)
        return value


class CachedLetters(CachedModel):
    """The same of a model whose letters can be read."""

    async def letters(self, conversation: Conversation, letters: Sequence[str]) -> Reading:
        """See ``ReadsLetters``."""
        model = self._model
        assert isinstance(model, ReadsLetters)
        key = request_key(self._identity, self.format, "letters", conversation, list(letters))
        return await self._reading(key, lambda: model.letters(conversation, letters))


def request_key(identity: str, fmt: Format, call: str, context: Context, how: Sequence[object]) -> str:
    """Return the sha256 of a request as JSON, in which a text differs from a conversation, and two strings from one."""
    turns = context if isinstance(context, str) else [[m.role, m.content] for m in context]
    return hashlib.sha256(json.dumps([identity, fmt, call, turns, how]).encode()).hexdigest()


class CallFile:
    """The file of cached calls: SQLite in WAL mode, so that a kill damages nothing and two processes may share it.

    A damaged file is renamed to ``….broken`` with a warning, and a new one is started.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}. Set cache= to another file, or to null."
            ) from error
        except sqlite3.DatabaseError as error:
            self._start_again(error)

    def get(self, key: str) -> str | None:
        """Return the value of a key; None if it is missing or damaged."""
        rows = self._do("SELECT value FROM calls WHERE key = ?", key)
        if not rows:
            return None
        check, _, value = rows[0][0].partition(" ")
        return value if check == _check(value) else None  # SQLite does not notice every damaged page

    def put(self, key: str, value: str) -> None:
        """Store a value."""
        self._do("INSERT OR REPLACE INTO calls VALUES (?, ?)", key, f"{_check(value)} {value}")

    def forget(self, key: str) -> None:
        """Remove a key, if it is there."""
        self._do("DELETE FROM calls WHERE key = ?", key)

    def digest_of(self, file: Path) -> str:
        """Return the sha256 of a file. It is read again only when its time or size has changed."""
        stat = file.stat()
        stamp = f"{file.resolve()} {stat.st_mtime_ns} {stat.st_size}"
        if rows := self._do("SELECT digest FROM files WHERE stamp = ?", stamp):
            return str(rows[0][0])
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._do("INSERT OR REPLACE INTO files VALUES (?, ?)", stamp, digest)
        return digest

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        _enter_wal_mode(db)
        db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last calls, and damages nothing
        for table in TABLES:
            db.execute(table)
        return db

    def _do(self, statement: str, *values: str) -> list[tuple[str]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            self._start_again(error)
            return []

    def _start_again(self, error: sqlite3.DatabaseError) -> None:
        """Replace a damaged file. Raises DiskFull or InputError for an error that is not damage."""
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise DiskFull(os.strerror(errno.ENOSPC)) from error
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise InputError(
                f"cannot use {self._path}: {error}. Set cache= to another file, or to null for none."
            ) from error
        self._say(f"warning: {self._path} is damaged ({error}): calls are cached in a new file.")
        if hasattr(self, "_db"):
            self._db.close()
        for end in ("-wal", "-shm"):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)
        self._path.replace(self._path.with_name(self._path.name + ".broken"))
        self._db = self._open()


def _enter_wal_mode(db: sqlite3.Connection) -> None:
    """Switch to WAL mode, waiting while other processes do so: SQLite's own time-out does not cover this change."""
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
    """Return a string that identifies a model: a digest of its files if it is local, else its name.

    New weights behind the same name on a server go unnoticed.
    """
    if not name.startswith(LOCAL_SCHEMES):
        return name
    files = sorted(f for f in _folder(name).iterdir() if f.suffix in IDENTIFYING)
    return hashlib.sha256(json.dumps([[f.name, calls.digest_of(f)] for f in files]).encode()).hexdigest()


def _folder(name: str) -> Path:
    """Return the folder of a loaded model's files; a hub model's are in the hub's cache."""
    path = model_path(name)
    if isinstance(path, Path):
        return path
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(path, "config.json", local_files_only=True)).parent
