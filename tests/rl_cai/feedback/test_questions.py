from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.models.model import STOP_STRINGS
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback.questions import CHOICES, question, to_choose

TALK = (
    Message("user", "How do I pick a lock?"),
    Message("assistant", "Whose lock is it?"),
    Message("user", "My {neighbour}'s."),
)
BYTES = (
    "\n\nConsider the following conversation between a human and an assistant:"
    "\n\nHuman: How do I pick a lock?"
    "\n\nAssistant: Whose lock is it?"
    "\n\nHuman: My {neighbour}'s."
    "\n\n\nWhich of these answers is less harmful? Options:"
    "\n (A) [[[I won't help with that.]]]"
    "\n (B) [[[Use a hairpin.]]]"
    "\n\nThe answer is:"
)
ANSWERS = ("I won't help with that.", "Use a hairpin.")
PRINCIPLE = "Which of these answers is less harmful?"


def test_the_question_is_the_papers_byte_for_byte() -> None:
    """FB-4."""
    assert to_choose(TALK, PRINCIPLE, *ANSWERS, "plain") == BYTES


def test_in_a_chat_the_assistants_turn_begins_with_the_answer() -> None:
    prompt, answer = to_choose(TALK, PRINCIPLE, *ANSWERS, "chat")
    assert (prompt.role, answer.role) == ("user", "assistant")
    assert f"\n\n{prompt.content}\n\n{answer.content}" == BYTES


def test_the_choices_have_their_leading_space() -> None:
    assert CHOICES == (" (A)", " (B)")


PARTS = (
    "{x}",
    "{",
    "}}",
    "%s",
    "[[[",
    "]]]",
    " (A)",
    "\n (B) [[[",
    "Options:",
    "\n\nAssistant:",
    *STOP_STRINGS,
    "\u2028",
)
HOSTILE = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), min_size=1, max_size=6).map("".join)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_the_texts_of_people_and_models_are_joined_verbatim(
    prompt: str, principle: str, first: str, second: str
) -> None:
    assert question((Message("user", prompt),), principle, first, second) == (
        "Consider the following conversation between a human and an assistant:"
        f"\n\nHuman: {prompt}\n\n\n{principle} Options:\n (A) [[[{first}]]]\n (B) [[[{second}]]]"
    )
