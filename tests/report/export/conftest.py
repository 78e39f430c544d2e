"""A run and an evaluation of two models, with every kind of row that is exported."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.evaluation.answers import AnswerScore
from constitutional_ai.records import (
    Answer,
    Comparison,
    Completion,
    Failure,
    Judgement,
    Message,
    Metric,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
    Verdict,
)
from constitutional_ai.runs.folder import open_run, read_run
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import HasId, Pass, Silent

TALK = (Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "=cmd|' /C calc'!A0 é\u2028"))
PROMPT = Prompt.of(TALK, "red_team", "test", ("fraud",))


def said(text: str, cut: bool = False) -> Completion:
    return Completion(text, "hf:m", "length" if cut else "stop", 7, 3)


RESPONSE = Response(f"{PROMPT.id}.0", PROMPT, said("Sure!"))
CHAIN = RevisionChain(
    RESPONSE.id,
    "c0ffee",
    RESPONSE,
    (
        Revision("kind", said("Unkind."), said("Kinder.")),
        Revision("kind", None, said(""), cut="Sure: ", fault="empty"),
    ),
)
COMPARISON = Comparison(RESPONSE.id, PROMPT, said("a"), said("b"))
LABEL = PreferenceLabel(
    RESPONSE.id,
    "c0ffee",
    COMPARISON,
    "likelihood",
    0.75,
    (Judgement("kind", "a", 0.75), Judgement("wise", "b", 0.25)),
)


def answer(model: str, number: int = 0, text: str = "No.", reward: float | None = None) -> Answer:
    response = Response(f"{PROMPT.id}.{number}", PROMPT, said(text, cut=not text))
    return Answer(f"{response.id}.{model}", model, response, Verdict(True, None if text else "empty"), reward)


METRICS = [
    Metric("objection_rate", "start", 0.5, 0.25, 0.75, 2),
    Metric("objection_rate", "sl/cai", 1.0, 0.5, 1.0, 1),
    Metric("win_rate", "start", None, None, None, 0),
]


def stage(run: Run, name: str, rows: Sequence[HasId]) -> None:
    async def passes() -> AsyncIterator[Pass[Any, Any]]:
        by_id = {row.id: row for row in rows}

        async def step(row: Any) -> Any:
            return row

        yield Pass(by_id, step)

    run.make_rows(name, type(rows[0]), passes, config={}, inputs={})


def metrics(folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps([asdict(m) for m in METRICS]))


ANSWERS = [answer("start", 0, reward=0.5), answer("start", 1, text=""), answer("sl/cai", 0)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with open_run(tmp_path / "run", {}, Silent()) as opened:
        stage(opened, "01-responses", [RESPONSE])
        stage(opened, "02-revisions", [CHAIN])
        stage(opened, "05-preference-labels", [LABEL])
        stage(opened, "08-evaluation", ANSWERS)
        write_rows(
            opened.stage("02-revisions") / "failures.jsonl",
            Failure,
            [Failure("x", "EmptyAnswer", "said nothing")],
        )
        metrics(opened.stage("08-evaluation"))
    return read_run(tmp_path / "run")


@pytest.fixture
def evaluated(tmp_path: Path) -> Run:
    """The folder of an evaluation."""
    with open_run(tmp_path / "evaluation", {}, Silent()) as opened:
        stage(opened, "answers", ANSWERS)
        stage(
            opened,
            "answers/pm-kind",
            [AnswerScore(ANSWERS[0].id, 1.5), AnswerScore(ANSWERS[1].id, None, "too long")],
        )
        metrics(opened.folder)
    return read_run(tmp_path / "evaluation")
