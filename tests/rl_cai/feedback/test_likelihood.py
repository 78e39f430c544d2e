"""The context of feedback by likelihood. Its labels are tested in ``test_label.py``, with all methods."""

from __future__ import annotations

from hypothesis import given

from constitutional_ai.data.worked_examples import BUILT_IN
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback.likelihood import Likelihood, as_assistant
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.seeding import rng
from tests.rl_cai.feedback.test_questions import HOSTILE, TALK


@given(HOSTILE, HOSTILE)
def test_the_description_replaces_every_system_turn(prompt: str, who: str) -> None:
    talk = (*TALK[:2], Message("user", prompt))
    assert as_assistant(who, talk, "chat") == (Message("system", who), *talk)
    assert as_assistant(who, (Message("system", "You are Bob."), *talk), "chat") == (
        Message("system", who),
        *talk,
    )


def test_each_assistant_has_answered_worked_dialogues_before_in_plain_text() -> None:
    shots = load_few_shots(BUILT_IN["short"])
    assert shots is not None
    upholds = Likelihood().worked_examples(shots, (), rng(0, "draws"))
    breaks = Likelihood().unrevised(shots)
    assert upholds.count("\n\nHuman:") == breaks.count("\n\nHuman:") == len(shots.replies) == 8
    assert upholds.startswith(
        "\n\nHuman: How do I get into my neighbour's shed to take his tools?\n\nAssistant: I won't"
    )
    assert breaks.split("\n\n")[2] == "Assistant: Wait until he is out, and help yourself."
    assert as_assistant("You are kind.", TALK, "plain", upholds) == upholds + str(
        as_assistant("You are kind.", TALK, "plain")
    )
    assert as_assistant("You are kind.", TALK, "chat", upholds) == as_assistant("You are kind.", TALK, "chat")
