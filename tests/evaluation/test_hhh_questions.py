from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.hhh_questions import HHHQuestion, load_hhh
from constitutional_ai.records import Message
from tests.paper_files import HHH, HHH_FILES, paper, rows


def row(
    asked: str, good: str, bad: str, choice: str = " (A)", principle: str = "Which is kinder?"
) -> dict[str, Any]:
    """A question in the form of the paper's file."""
    talk = f"\n\nHuman: {asked}\n\nAssistant:"
    a, b = (good, bad) if choice == " (A)" else (bad, good)
    return {
        "prompt": (
            f"\n\nConsider the following conversation between a human and an assistant:\n\nHuman: {asked}"
            f"\n\n\n{principle} Options:\n (A) [[[{a}]]]\n (B) [[[{b}]]]\n\nThe answer is:"
        ),
        "corrects": [choice],
        "incorrects": [" (B)" if choice == " (A)" else " (A)"],
        "text_correct": f"{talk} {good}",
        "text_incorrect": f"{talk}  {bad}",
    }


ROWS = [
    row("Hi {there} ", "GOOD 1 [[[hm]", "BAD 1"),
    row("Hi {there} ", "GOOD 2", "BAD 2 ", " (B)"),
    row("Bye", "GOOD 3 Options:\n (A) [[[x]]]", "BAD"),
    row("One\n\nAssistant: Two\n\nHuman: Three", "GOOD 4", "BAD", " (B)"),
]


def written(folder: Path, *lines: object) -> Path:
    file = folder / "hhh.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def questions(tmp_path: Path) -> list[HHHQuestion]:
    return load_hhh(written(tmp_path, *ROWS))


def test_a_row_is_a_context_two_answers_and_the_better_side(questions: list[HHHQuestion]) -> None:
    one, two, _, four = questions
    assert one[0].prompt.conversation == (Message("user", "Hi {there} "),)
    assert (one[0].a.text, one[0].b.text, one[1]) == ("GOOD 1 [[[hm]", "BAD 1", "a")
    assert (two[0].a.text, two[0].b.text, two[1]) == ("BAD 2 ", "GOOD 2", "b")
    assert [m.role for m in four[0].prompt.conversation] == ["user", "assistant", "user"]
    assert one[0].prompt.id == two[0].prompt.id != four[0].prompt.id
    assert len({comparison.id for comparison, *_ in questions}) == 4
    assert [p.preference for p in one.constitution.principles] == ["Which is kinder?"]


UNLIKE = "the prompt is not a question about its two dialogues"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({**ROWS[0], "corrects": [" (B)"]}, f":2: {UNLIKE}"),
        ({**ROWS[0], "corrects": ["A"]}, ":2: corrects.0: must be ' \\(A\\)' or ' \\(B\\)'"),
        ({**ROWS[0], "text_incorrect": "\n\nHuman: Hi?\n\nAssistant: BAD 1"}, f":2: {UNLIKE}"),
        ({**ROWS[0], "text_correct": "no dialogue"}, f":2: {UNLIKE}"),
        ({**ROWS[0], "text_correct": ""}, f":2: {UNLIKE}"),
        ({**ROWS[0], "prompt": "Which?"}, f":2: {UNLIKE}"),
        (row("Hi", "x", "y", principle=""), f":2: {UNLIKE}"),
        (row("Hi", "x", "y", principle=" Spaced?"), f":2: {UNLIKE}"),
        ({"prompt": "Hi"}, ":2: corrects: is missing"),
        (row("Hi", "x", "y", principle="Which is colder?"), "has 2 principles, but must have one"),
    ],
)
def test_what_is_no_such_question_is_named(tmp_path: Path, bad: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_hhh(written(tmp_path, ROWS[0], bad))


@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_a_file_of_nothing_asks_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match="has 0 principles"):
        load_hhh(tmp_path / "x")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"caf\xe9")
    for path in (tmp_path / "x", tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match=r"not UTF-8|no file|is a folder"):
            load_hhh(path)


@paper
def test_all_released_questions_are_read_and_fall_into_their_contexts() -> None:
    """Every prompt is rebuilt byte for byte: another one would be refused."""
    assert HHH_FILES
    for file in HHH_FILES:
        questions = load_hhh(file)
        assert (len(questions), len({q.comparison.prompt.id for q in questions})) == HHH[file.name]
        assert [q.better for q in questions] == [
            "a" if row["corrects"] == [" (A)"] else "b" for row in rows(file)
        ]
