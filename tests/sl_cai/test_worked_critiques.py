"""The paper's worked critiques and revisions (SL-11)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.records import Message
from constitutional_ai.sl_cai.critique_requests import to_critique
from constitutional_ai.sl_cai.worked_critiques import CRITIQUE_REVISION, critique_revision
from tests.paper_files import PAPER, paper

DIALOGUES = ["\n\nHuman: Hi\n\nAssistant: Go.\n\nCritique: {x}\n\nHuman:", "\n\nHuman: Yo\n\nAssistant: Oh."]


def written(folder: Path, content: object = DIALOGUES) -> Path:
    (folder / CRITIQUE_REVISION).write_text(json.dumps(content))
    return folder


def test_dialogues_are_joined_without_the_stop_that_some_end_with(tmp_path: Path) -> None:
    """5.1.2."""
    shots = critique_revision(written(tmp_path))
    assert shots == "\n\nHuman: Hi\n\nAssistant: Go.\n\nCritique: {x}\n\nHuman: Yo\n\nAssistant: Oh."


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "must hold a list of examples"),
        ([], "must hold a list of examples"),
        ([*DIALOGUES, "Human: Hi"], "[2] must be a dialogue"),
    ],
)
def test_a_file_of_another_form_is_an_input_error(tmp_path: Path, content: object, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        critique_revision(written(tmp_path, content))
    assert str(caught.value).startswith(str(tmp_path / CRITIQUE_REVISION))
    assert problem in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=CRITIQUE_REVISION):
        critique_revision(tmp_path)


@paper
def test_the_papers_dialogues_stand_before_a_request_without_a_turn_too_many() -> None:
    talk = (Message("user", "Hi"),)
    shots = critique_revision(PAPER)
    request = to_critique(talk, "Go.", "Was it kind?", "plain")
    assert isinstance(request, str)
    whole = shots + request
    raw = json.loads((PAPER / "prompts" / CRITIQUE_REVISION).read_text(encoding="utf-8"))
    # Turns 2, 1, 1, 2, 2 and the request's own; four of the five end with a turn that they do not begin.
    assert whole.count("\n\nHuman: ") == whole.count("\n\nHuman:") == 2 + 1 + 1 + 2 + 2 + 1
    assert shots.count("\n\nRevision: ") == len(raw) == 5
    assert shots.startswith("\n\nHuman: ")
    assert len(shots) == sum(map(len, raw)) - 4 * len("\n\nHuman:")
