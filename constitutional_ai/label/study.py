"""Keep a labelling study in one SQLite file: its settings, the people, the questions, and every answer.

An answer is on the disk before the browser hears that it was taken (``synchronous=FULL``), so neither a kill of the
server nor a power cut loses one. Answers are added and never changed: of a person's answers to one question the last
one counts, but in a conversation with models only the first, because the conversation went on from it.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from constitutional_ai.errors import InputError
from constitutional_ai.label.label_questions import ANSWERS, TYPES, Answer, PairQuestion, Question, Vote
from constitutional_ai.label.settings import Settings
from constitutional_ai.records import Prompt, Side
from constitutional_ai.runs.durable import sync
from constitutional_ai.runs.rows import adapter

FILE = "votes.sqlite"
TABLES = (
    "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS people (number INTEGER PRIMARY KEY, name TEXT UNIQUE, token TEXT, agreed TEXT)",
    "CREATE TABLE IF NOT EXISTS prompts (number INTEGER PRIMARY KEY, prompt TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS questions "
    "(number INTEGER PRIMARY KEY, id TEXT UNIQUE, person TEXT, ended INTEGER DEFAULT 0, question TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS answers (number INTEGER PRIMARY KEY, question TEXT NOT NULL, person TEXT NOT NULL, "
    "shown_first TEXT, answer TEXT NOT NULL, at TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS answered ON answers (person, question)",
)
WAIT_SECONDS = 30.0
"""How long to wait for another process that writes the same file."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who answers, and the token in the link."""

    number: int
    """The first one added has 1."""
    name: str
    token: str
    agreed: bool
    """Whether the person has read the instructions and wants to begin."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A question with its number, by which browsers know it: ids may name models."""

    number: int
    question: Question
    ended: bool = False
    """Whether the conversation that it belongs to was ended after it."""


class Study:
    """A study on disk."""

    def __init__(self, folder: Path) -> None:
        """Open the study in a folder. Raises InputError if there is none."""
        path = folder / FILE
        if not path.exists():
            raise InputError(f"no labels in '{folder}'. Begin some with: cai label RUN")
        self.folder, self._file = folder, _connect(path)
        try:
            rows = dict(self._file.execute("SELECT name, value FROM settings"))
            self.settings = adapter(Settings).validate_json(rows["settings"])
        except (sqlite3.DatabaseError, KeyError, ValidationError) as error:
            self._file.close()
            raise InputError(f"{path} is not a file of labels. Name another folder.") from error
        self._question = adapter(TYPES[self.settings.task])
        self._answer = adapter(ANSWERS[self.settings.task])

    @classmethod
    def begin(
        cls, folder: Path, settings: Settings, questions: Iterable[Question], prompts: Iterable[Prompt] = ()
    ) -> Study:
        """Begin a study in a folder, or open the one that is there, whose seed and questions it keeps.

        Raises InputError if the one that is there differs in its settings.
        """
        if (folder / FILE).exists():
            study = cls(folder)
            if replace(settings, seed=study.settings.seed) != study.settings:
                raise InputError(
                    f"{folder} holds other labels ({_in_words(study.settings)}). Name another folder with --out."
                )
            return study
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{FILE}.part"  # a study is there whole or not at all
        part.unlink(missing_ok=True)
        with closing(_connect(part, journal="DELETE")) as file, file:
            for table in TABLES:
                file.execute(table)
            _insert(file, "settings (name, value)", [("settings", _dump(settings))])
            _insert(file, "questions (id, question)", ((q.id, _dump(q)) for q in questions))
            _insert(file, "prompts (prompt)", ((_dump(prompt),) for prompt in prompts))
        part.rename(folder / FILE)
        sync(folder)
        return cls(folder)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # -- people

    def add_people(self, names: Sequence[str]) -> list[Person]:
        """Add people who are not there yet, each with a random token, and return all."""
        with self._file:
            for name in names:
                self._file.execute(
                    "INSERT OR IGNORE INTO people (name, token) VALUES (?, ?)",
                    (name, secrets.token_urlsafe(24)),
                )
        return self.people()

    def people(self) -> list[Person]:
        """Return all people in the order in which they were added."""
        rows = self._file.execute("SELECT number, name, token, agreed FROM people ORDER BY number")
        return [Person(number, name, token, agreed is not None) for number, name, token, agreed in rows]

    def person(self, name: str) -> Person:
        """Return the person of that name, who exists."""
        return next(person for person in self.people() if person.name == name)

    def agree(self, person: str) -> None:
        """Note that a person has read the instructions and wants to begin."""
        with self._file:
            self._file.execute(
                "UPDATE people SET agreed = ? WHERE name = ? AND agreed IS NULL", (_now(), person)
            )

    # -- questions

    def questions(self, person: str | None = None) -> Iterator[Numbered]:
        """Yield all questions, or those of one person's own conversations, in order."""
        own = " WHERE person = ?" if person is not None else ""
        rows = self._file.execute(
            f"SELECT number, question, ended FROM questions{own} ORDER BY number",  # noqa: S608 - no stranger's text
            () if person is None else (person,),
        )
        for number, question, ended in rows.fetchall():
            yield Numbered(number, self._question.validate_json(question), bool(ended))

    def question(self, number: int) -> Numbered | None:
        """Return the question of that number, if there is one."""
        row = self._file.execute("SELECT question, ended FROM questions WHERE number = ?", (number,)).fetchone()
        return row and Numbered(number, self._question.validate_json(row[0]), bool(row[1]))

    def belongs_to(self, number: int, person: str) -> bool:
        """Return whether a question is everybody's, or of this person's own conversation."""
        row = self._file.execute("SELECT person FROM questions WHERE number = ?", (number,)).fetchone()
        return row is not None and row[0] in (None, person)

    def next_number(self, person: str) -> int | None:
        """Return the number of the first question that a person has not answered; None if there is none."""
        row = self._file.execute(
            "SELECT MIN(number) FROM questions WHERE person IS NULL AND id NOT IN "
            "(SELECT question FROM answers WHERE person = ?)",
            (person,),
        ).fetchone()
        return cast(int | None, row[0])

    def previous_number(self, person: str, number: int | None) -> int | None:
        """Return the number of the last question before this one (None: of all) that a person has answered."""
        row = self._file.execute(
            "SELECT MAX(number) FROM questions WHERE person IS NULL AND (? IS NULL OR number < ?) AND id IN "
            "(SELECT question FROM answers WHERE person = ?)",
            (number, number, person),
        ).fetchone()
        return cast(int | None, row[0])

    def progress(self, person: str) -> tuple[int, int]:
        """Return how many questions a person has answered, and how many there are for everybody."""
        answered = "SELECT COUNT(DISTINCT question) FROM answers WHERE person = ?"
        total = "SELECT COUNT(*) FROM questions WHERE person IS NULL"
        return self._count(answered, (person,)), self._count(total)

    def add_turn(self, person: str, question: PairQuestion) -> bool:
        """Add a turn of a person's own conversation; return whether it is new: forms are sent twice."""
        with self._file:
            added = self._file.execute(
                "INSERT OR IGNORE INTO questions (id, person, question) VALUES (?, ?, ?)",
                (question.id, person, _dump(question)),
            )
        return added.rowcount == 1

    def add_reply(self, number: int, side: Side, text: str) -> None:
        """Keep a model's reply to a turn. The first one counts."""
        with self._file:
            row = self._file.execute("SELECT question FROM questions WHERE number = ?", (number,)).fetchone()
            question = self._question.validate_json(row[0])
            assert isinstance(question, PairQuestion)
            if question.reply(side) is None:
                with_reply = replace(question, **cast(Any, {f"reply_{side}": text}))
                self._file.execute(
                    "UPDATE questions SET question = ? WHERE number = ?", (_dump(with_reply), number)
                )

    def end(self, number: int) -> None:
        """End the conversation of which a question is the last turn."""
        with self._file:
            self._file.execute("UPDATE questions SET ended = 1 WHERE number = ?", (number,))

    # -- prompts

    def prompt(self, number: int) -> Prompt | None:
        """Return one of the prompts with which conversations begin, counted over and over; None without any."""
        count = self._count("SELECT COUNT(*) FROM prompts")
        if not count:
            return None
        row = self._file.execute(
            "SELECT prompt FROM prompts WHERE number = ?", (number % count + 1,)
        ).fetchone()
        return adapter(Prompt).validate_json(row[0])

    # -- answers

    def add_answer(
        self, question: str, person: str, answer: Answer, shown_first: Side | None, *, at: str | None = None
    ) -> None:
        """Add a person's answer, and wait until it is on the disk."""
        only_first = self.settings.task == "compare"
        with self._file:
            self._file.execute(
                "INSERT INTO answers (question, person, shown_first, answer, at) SELECT ?, ?, ?, ?, ? WHERE NOT "
                "(? AND EXISTS (SELECT 1 FROM answers WHERE question = ? AND person = ?))",
                (question, person, shown_first, _dump(answer), at or _now(), only_first, question, person),
            )

    def answer(self, question: str, person: str) -> Answer | None:
        """Return a person's answer to a question, if there is one."""
        row = self._file.execute(
            "SELECT answer FROM answers WHERE question = ? AND person = ? ORDER BY number DESC LIMIT 1",
            (question, person),
        ).fetchone()
        return row and self._answer.validate_json(row[0])

    def votes(self) -> list[Vote]:
        """Return the answers that count, in the order in which they came."""
        rows = self._file.execute(
            "SELECT question, person, answer, shown_first, at FROM answers WHERE number IN "
            "(SELECT MAX(number) FROM answers GROUP BY question, person) ORDER BY number"
        )
        return [
            Vote(question, person, self._answer.validate_json(answer), first, at)
            for question, person, answer, first, at in rows
        ]

    def _count(self, query: str, values: tuple[Any, ...] = ()) -> int:
        return int(self._file.execute(query, values).fetchone()[0])


def _connect(path: Path, journal: str = "WAL") -> sqlite3.Connection:
    # One event loop uses it; test clients run that in a thread of its own.
    file = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
    path.chmod(0o600)  # the tokens let people in
    try:
        file.execute(f"PRAGMA journal_mode={journal}")
        file.execute("PRAGMA synchronous=FULL")
    except sqlite3.DatabaseError as error:
        file.close()
        raise InputError(f"{path} is not a file of labels. Name another folder.") from error
    return file


def _insert(file: sqlite3.Connection, into: str, rows: Iterable[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * (into.count(",") + 1))
    file.executemany(f"INSERT INTO {into} VALUES ({marks})", rows)  # noqa: S608 - no stranger's text


def _dump(value: Any) -> str:
    return adapter(type(value)).dump_json(value).decode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _in_words(settings: Settings) -> str:
    shown = {name: value for name, value in json.loads(_dump(settings)).items() if value not in (None, [])}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
