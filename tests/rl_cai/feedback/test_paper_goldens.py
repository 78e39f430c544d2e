"""Every question of the paper's released HHH evaluation, rebuilt from its parts byte for byte (FB-4)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from constitutional_ai.constitutions.published import import_constitution
from constitutional_ai.records import Conversation, Message
from constitutional_ai.rl_cai.feedback.questions import CHOICES, to_choose
from tests.paper_files import HHH, HHH_FILES, PAPER, paper, rows


def parts_of(text: str) -> tuple[Conversation, str]:
    """A dialogue's turns before its last answer, their bytes kept, and that answer without its leading spaces."""
    talk, _, answer = text.rpartition("\n\nAssistant:")
    _, *parts = re.split(r"\n\n(Human|Assistant): ", talk)
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [Message(roles[who], text) for who, text in zip(parts[::2], parts[1::2], strict=True)]
    return tuple(turns), answer.lstrip(" ")


def rebuilt(row: dict[str, Any], principle: str) -> object:
    talk, better = parts_of(row["text_correct"])
    same_talk, worse = parts_of(row["text_incorrect"])
    assert same_talk == talk
    answers = (better, worse) if row["corrects"] == [CHOICES[0]] else (worse, better)
    return to_choose(talk, principle, *answers, "plain")


def test_a_dialogue_is_taken_apart_without_losing_a_byte() -> None:
    text = "\n\nHuman: Hi  \n\nAssistant:  Hello\n\nthere\n\nHuman: {}\n\nAssistant:   Yes "
    talk = (Message("user", "Hi  "), Message("assistant", " Hello\n\nthere"), Message("user", "{}"))
    assert parts_of(text) == (talk, "Yes ")


def differing(file: Path) -> list[int]:
    principle = import_constitution(PAPER).for_preference[1].preference or ""
    return [n for n, row in enumerate(rows(file)) if rebuilt(row, principle) != row["prompt"]]


@paper
def test_every_released_question_is_rebuilt_byte_for_byte() -> None:
    assert HHH_FILES
    for file in HHH_FILES:
        assert len(rows(file)) == HHH[file.name][0]
        assert differing(file) == []


@paper
def test_a_question_under_another_principle_differs() -> None:
    assert rebuilt(rows(HHH_FILES[0])[0], "Which is better?") != rows(HHH_FILES[0])[0]["prompt"]
