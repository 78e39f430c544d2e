"""d-RLAIF: the feedback model's own rating as reward."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import TooManyFailures
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.reinforcement.feedback_reward import RATINGS, FeedbackReward, to_rate

TALK = (Message("user", "Hi {you}?"), Message("assistant", "Hello!"))
KIND = Principle(name="kind", preference="Which is kinder?", upheld="You are kind.", broken="You are cruel.")
MINE = Constitution(name="m", principles=(KIND,))


def reward(weigh: Any, *talks: Any, **changes: Any) -> list[float | None]:
    return FeedbackReward(ScriptedModel(weigh=weigh), MINE, Feedback(**changes), 0)(talks or (TALK,))


@pytest.mark.parametrize(
    ("masses", "expected"),
    [
        ({" (10)": 1.0}, 1.0),
        ({" (1)": 1.0}, -1.0),
        ({" (5)": 0.5, " (6)": 0.5}, 0.0),
        # 0.25·1 + 0.75·9 = 7; (7 − 5.5) / 4.5 = 1/3, and other words' mass does not count
        ({" (1)": 0.05, " (9)": 0.15}, 1 / 3),
    ],
)
def test_the_reward_is_the_mean_rating(masses: dict[str, float], expected: float) -> None:
    assert reward(lambda context, rating: math.log(masses.get(rating, 1e-300))) == [pytest.approx(expected)]


def test_by_likelihood_the_reward_is_that_of_the_assistant_that_upholds() -> None:
    """Odds of 3 to 1 for the kind one: 2·0.75 − 1."""
    rewards = reward(lambda context, answer: math.log(3) if "kind" in context else 0.0, method="likelihood")
    assert rewards == [pytest.approx(0.5)]


def test_a_batch_is_rated_in_order_and_nan_gives_no_reward() -> None:
    talks = [(TALK[0], Message("assistant", f"Reply {n}")) for n in range(12)]

    def weigh(context: str, rating: str) -> float:
        if "Reply 3" in context:
            return math.nan
        return 0.0 if rating == (" (10)" if "Reply 1" in context else " (1)") else -1000.0

    assert reward(weigh, *talks) == [
        None if n == 3 else pytest.approx(1.0 if n in (1, 10, 11) else -1.0) for n in range(12)
    ]


@given(st.lists(st.floats(-1e6, 1e6), min_size=10, max_size=10))
def test_rewards_lie_between_minus_one_and_one(logps: list[float]) -> None:
    (value,) = reward(lambda context, rating: logps[RATINGS.index(rating)])
    assert value is not None
    assert -1 - 1e-9 <= value <= 1 + 1e-9


def test_the_rating_question_holds_conversation_and_principle_verbatim() -> None:
    text = to_rate(TALK, "Which is {kinder}?", "plain")
    assert isinstance(text, str)
    assert "\n\nHuman: Hi {you}?\n\nAssistant: Hello!\n\n" in text
    assert "Which is {kinder}?" in text
    assert text.endswith("\n\nThe rating is:")
    chat = to_rate(TALK, "Which?", "chat")
    assert [m.role for m in chat if isinstance(m, Message)] == ["user", "assistant"]


def test_no_rating_is_a_prefix_of_another() -> None:
    """Else one that is sure of 10 would give 1 at least as much."""
    assert not [(a, b) for a in RATINGS for b in RATINGS if a != b and b.startswith(a)]


def test_answers_to_one_prompt_are_rated_under_one_principle() -> None:
    seen: dict[str, set[str]] = {}

    def weigh(context: str, rating: str) -> float:
        prompt = context.partition("Human: Prompt ")[2].partition("\n")[0]
        seen.setdefault(prompt, set()).add(context.partition("this question: ")[2].partition("\n")[0])
        return 0.0

    many = Constitution(
        name="m", principles=tuple(Principle(name=f"p{n}", preference=f"Q{n}?") for n in range(16))
    )
    talks = [
        (Message("user", f"Prompt {n}"), Message("assistant", f"Reply {m}")) for n in range(8) for m in range(4)
    ]
    FeedbackReward(ScriptedModel(weigh=weigh), many, Feedback(), 0)(talks)
    assert len(seen) == 8
    assert all(len(questions) == 1 for questions in seen.values())
    assert len(set.union(*seen.values())) > 2


def test_a_judge_that_rates_nothing_ends_the_training() -> None:
    with pytest.raises(
        TooManyFailures, match="judged none of 2 answers; the last: the model's log-probabilities are"
    ):
        reward(lambda context, rating: math.nan, TALK, TALK)
