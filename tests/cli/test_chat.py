from __future__ import annotations

import io
import shutil

import pytest

from constitutional_ai.cli import chat
from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.runs.run import Run


def talk(run: Run, typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Each model tells how much of the conversation it was given, in its own way."""

    def model(name: str) -> ScriptedModel:
        role = next((r for r in ("03-sl", "07-rl") if r in name), "first")
        return ScriptedModel(say=lambda context: f"{role}-{context.count('Human:')}\x1b[2J[bold]")

    monkeypatch.setattr(chat, "load_model", model)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    chat.side_by_side(run, Sampling())
    return capsys.readouterr().out


def test_three_models_keep_their_own_conversations(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = talk(run, "hello\nagain\n/new\nhello\n\nnever asked\n", monkeypatch, capsys)
    turns = [said.count(f"{role}-{n}") for role in ("first", "03-sl", "07-rl") for n in (1, 2, 3)]
    assert turns == [2, 1, 0] * 3
    assert "never" not in said


def test_answers_are_neither_markup_nor_escapes(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = talk(run, "hello\n", monkeypatch, capsys)
    assert "\x1b" not in said and "first-1␛[2J[bold]" in said


def test_models_that_are_not_made_are_left_out(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run.folder / "07-rl-cai-model")
    said = talk(run, "hello\n", monkeypatch, capsys)
    assert "RL-CAI is left out: 07-rl-cai-model is not complete." in said
    assert "03-sl-1" in said and "07-rl-1" not in said


def test_a_model_that_cannot_answer_says_so_and_forgets(
    empty_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(context: str) -> str:
        if "silence" in context:
            raise EmptyAnswer("it said nothing")
        return f"heard {context.count('Human:')}"

    monkeypatch.setattr(chat, "load_model", lambda name: ScriptedModel(say=say))
    monkeypatch.setattr("sys.stdin", io.StringIO("silence\nhello\n"))
    chat.side_by_side(empty_run, Sampling())
    said = capsys.readouterr().out
    assert "(no answer: it said nothing)" in said and "heard 1" in said
