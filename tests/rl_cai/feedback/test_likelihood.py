"""The context of feedback by likelihood. Its labels are tested in ``test_label.py``, with all methods."""

from __future__ import annotations

from hypothesis import given

from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback.likelihood import as_assistant
from tests.rl_cai.feedback.test_questions import HOSTILE, TALK


@given(HOSTILE, HOSTILE)
def test_the_description_replaces_every_system_turn(prompt: str, who: str) -> None:
    talk = (*TALK[:2], Message("user", prompt))
    assert as_assistant(who, talk, "chat") == (Message("system", who), *talk)
    assert as_assistant(who, (Message("system", "You are Bob."), *talk), "chat") == (
        Message("system", who),
        *talk,
    )
