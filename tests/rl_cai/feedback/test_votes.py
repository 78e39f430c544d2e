"""Feedback by sampled votes, for models that give no log-probabilities."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import UnreadableAnswer
from constitutional_ai.models.model import Context, Sampling, cut_at_stop
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Comparison, Completion, Message, Prompt
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.votes import read_vote

PAIR = Comparison(
    "p.0",
    Prompt.of((Message("user", "Hi?"),), "red_team", "test"),
    *[Completion(text, "m", "stop", 0, 1) for text in ("Hello!", "Go away.")],
)
MINE = Constitution(name="m", principles=(Principle(name="kind", preference="Which is kinder?"),))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("(A)", "A"),
        (" (B).", "B"),
        ("A", "A"),
        ("B: it is kinder", "B"),
        ("The answer is (A).", "A"),
        ("(A) is kinder than (B)", None),
        ("A good question", None),
        ("I cannot choose.", None),
        ("Both", None),
        ("", None),
    ],
)
def test_a_vote_names_one_option(text: str, read: str | None) -> None:
    assert read_vote(text) == read


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert read_vote(text) in ("A", "B", None)


def labelled(*answers: str, votes: int) -> float:
    turns = count()
    model = ScriptedModel(say=lambda context: answers[next(turns) % len(answers)])
    settings = Feedback(method="votes", both_orders=False, votes=votes)
    soft = asyncio.run(label(PAIR, model=model, constitution=MINE, settings=settings, seed=0))
    assert soft.method == "votes"
    return soft.judgements[0].probability_first


def test_the_share_of_readable_votes_is_the_probability() -> None:
    assert labelled("(A)", "(A)", "(A)", "(B)", votes=4) == 0.75
    assert labelled("(A)", "Who knows?", "(B)", "(A)", votes=4) == pytest.approx(2 / 3)


def test_too_few_readable_votes_are_no_label() -> None:
    with pytest.raises(UnreadableAnswer, match="only 1 of 4 votes"):
        labelled("(A)", "Hm.", "Well.", "No.", votes=4)


def test_every_vote_costs_its_tokens_whether_or_not_it_can_be_read() -> None:
    answers = iter(["(A)", "Who knows that?"])
    model = ScriptedModel(say=lambda context: next(answers))
    settings = Feedback(method="votes", both_orders=False, votes=2)
    soft = asyncio.run(label(PAIR, model=model, constitution=MINE, settings=settings, seed=0))
    cost = soft.judgements[0].usage
    assert cost is not None
    assert cost.completion_tokens == 1 + 3
    assert cost.prompt_tokens % 2 == 0 < cost.prompt_tokens  # the same question twice


class GoesOn(ScriptedModel):
    """A base model continues like this after worked examples."""

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        text, _ = cut_at_stop(" (A)\n\nConsider the following … (B)", sampling.stop)
        return Completion(text.strip(), self.name, "stop", 1, 1)


def test_in_plain_text_a_vote_ends_before_the_next_question() -> None:
    settings = Feedback(method="votes", format="plain", both_orders=False, votes=2)
    soft = asyncio.run(label(PAIR, model=GoesOn(), constitution=MINE, settings=settings, seed=0))
    assert soft.judgements[0].probability_first == 1.0
