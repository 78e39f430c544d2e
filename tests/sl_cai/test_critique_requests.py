from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.models.model import STOP_STRINGS, plain
from constitutional_ai.records import Message
from constitutional_ai.sl_cai.critique_requests import (
    STOPS,
    answered,
    to_answer_again,
    to_critique,
    to_revise,
)

PARTS = (
    "{x}",
    "{0}",
    "{{",
    "}}",
    "%s",
    "\\n",
    "\n\n",
    "<EOT>",
    *STOP_STRINGS,
    *STOPS,
    "\n\nAssistant:",
    "é",
    "\u2028",
)
HOSTILE = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), min_size=1, max_size=6).map("".join)


def in_order(parts: list[str], text: str) -> bool:
    """Whether all parts stand in the text, each after the one before."""
    at = 0
    for part in parts:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_what_people_and_models_write_is_joined_verbatim(
    asked: str, answer: str, critique: str, principle: str
) -> None:
    talk = (Message("user", asked),)
    for fmt in ("plain", "chat"):
        context = to_critique(talk, answer, principle, fmt)
        text = context if isinstance(context, str) else plain(context)
        assert in_order([asked, answer, principle], text)
        context = to_revise(talk, answer, ("Why?", critique), principle, fmt)
        text = context if isinstance(context, str) else plain(context)
        assert in_order([asked, answer, "Why?", critique, principle], text)
    assert plain(to_answer_again(talk, principle)) == f"\n\nHuman: {asked}\n\n({principle})\n\nAssistant:"


@given(HOSTILE, HOSTILE)
def test_an_answer_stands_after_the_last_human_turn(asked: str, answer: str) -> None:
    talk = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", asked))
    assert (
        answered(talk, answer) == f"\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: {asked}\n\nAssistant: {answer}"
    )


def test_earlier_turns_stay_when_a_prompt_is_asked_again() -> None:
    talk = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Now this"))
    assert to_answer_again(talk, "Be kind.") == (*talk[:2], Message("user", "Now this\n\n(Be kind.)"))
