"""Feedback by sampled votes, for models that give no log-probabilities."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import OnlyThought, UnreadableAnswer
from constitutional_ai.models.model import Context, Sampling, cut_at_stop
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Comparison, Completion, Judgement, Message, Prompt
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback

PAIR = Comparison(
    "p.0",
    Prompt.of((Message("user", "Hi?"),), "red_team", "test"),
    *[Completion(text, "m", "stop", 0, 1) for text in ("Hello!", "Go away.")],
)
MINE = Constitution(name="m", principles=(Principle(name="kind", preference="Which is kinder?"),))


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


class Thinks(ScriptedModel):
    """A model that thinks before each vote, and sometimes for too long."""

    def __init__(self, *replies: Completion | OnlyThought) -> None:
        super().__init__()
        self._replies = iter(replies)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        reply = next(self._replies)
        if isinstance(reply, OnlyThought):
            raise reply
        return reply


def judgement_of(*replies: Completion | OnlyThought) -> Judgement:
    settings = Feedback(method="votes", both_orders=False, votes=len(replies))
    return asyncio.run(
        label(PAIR, model=Thinks(*replies), constitution=MINE, settings=settings, seed=0)
    ).judgements[0]


B_AFTER_A = Completion("(B)", "m", "stop", 5, 9, thought="(A) would help a burglar.")


def test_a_vote_is_read_from_what_follows_the_thought() -> None:
    judgement = judgement_of(B_AFTER_A, B_AFTER_A)
    assert judgement.probability_first == 0.0
    assert judgement.thought == "(A) would help a burglar.\n\n(A) would help a burglar."
    assert judgement.reasoning is None


def test_a_thought_that_is_cut_is_no_vote_and_spoils_no_other() -> None:
    assert judgement_of(B_AFTER_A, OnlyThought("too long")).probability_first == 0.0
    with pytest.raises(UnreadableAnswer, match="only 1 of 3 votes"):
        judgement_of(B_AFTER_A, OnlyThought("too long"), OnlyThought("too long"))
    with pytest.raises(OnlyThought, match="too long"):
        judgement_of(OnlyThought("too long"))
