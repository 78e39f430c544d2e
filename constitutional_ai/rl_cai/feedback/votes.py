"""Label by votes of a model that gives no log-probabilities, as most hosted chat models. Ours, not the paper's.

The share of sampled replies that name an option replaces its probability, and is coarser than FB-5. A reply that names
no option, or both, is not a vote.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from constitutional_ai.errors import RefusedAnswer, UnreadableAnswer
from constitutional_ai.models.model import Context, Format, Model
from constitutional_ai.records import Comparison, Judgement, Message, total
from constitutional_ai.rl_cai.feedback import questions
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod, FeedbackQuestion
from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.seeding import seed_of

OPTION = re.compile(r"\(([AB])\)|^\W*([AB])(?![\w'])")
READABLE_SHARE = 0.5
"""Minimum share of the replies that must be votes; with fewer there is no label."""


class Votes(FeedbackMethod):
    """The model writes a letter several times, and the share of votes for (A) is the probability."""

    name = "votes"
    needs_scores = False
    samples_text = True

    def calls(self, settings: Feedback) -> int:
        return settings.votes

    async def judge(self, question: FeedbackQuestion, model: Model, settings: Feedback) -> Judgement:
        """Sample ``settings.votes`` replies.

        Raises UnreadableAnswer if too few of them are votes, or RefusedAnswer if most of the others are refusals.
        """
        fmt, sampling = settings.format_for(model), settings.sampling(question.seed)
        context = to_vote(question.shown, question.principle.preference or "", fmt, question.few_shots)
        if fmt == "plain":  # a base model goes on to a next question, whose letters would spoil this vote
            sampling = replace(sampling, stop=("\n",))
        draws = [replace(sampling, seed=seed_of(question.seed, number)) for number in range(settings.votes)]
        replies = await asyncio.gather(*[model.generate(context, draw) for draw in draws])
        return question.judged(share_of_first([r.text for r in replies]), None, total(replies))


def share_of_first(replies: Sequence[str]) -> float:
    """Return the share of votes for (A). Raises UnreadableAnswer or RefusedAnswer if there are too few votes."""
    votes = [vote for vote in map(read_vote, replies) if vote is not None]
    if len(votes) < READABLE_SHARE * len(replies):
        refusals = sum(read_vote(reply) is None and refuses_to_judge(reply) for reply in replies)
        kind = RefusedAnswer if 2 * refusals > len(replies) - len(votes) else UnreadableAnswer
        raise kind(
            f"only {len(votes)} of {len(replies)} votes name one option; the first reply is {replies[0][:80]!r}"
        )
    return votes.count("A") / len(votes)


def to_vote(comparison: Comparison, principle: str, fmt: Format, few_shots: str = "") -> Context:
    """Return the context that the model continues with its vote."""
    conversation, a, b = comparison.prompt.conversation, comparison.a.text, comparison.b.text
    if fmt == "plain":
        return questions.to_choose(conversation, principle, a, b, fmt, few_shots)
    text = questions.question(conversation, principle, a, b)
    # Most servers cannot continue an assistant turn, so the question itself says how to answer.
    return (Message("user", f"{text}\n\nAnswer with (A) or (B) and nothing else."),)


def read_vote(text: str) -> Literal["A", "B"] | None:
    """Return the one option that a reply names, or None.

    >>> read_vote("(B)"), read_vote("B."), read_vote("A good question"), read_vote("(A) or (B)")
    ('B', 'B', None, None)
    """
    named = {bracketed or bare for bracketed, bare in OPTION.findall(text.strip())}
    if named == {"A"} and not re.match(r"A [a-z]", text.strip()):  # the article of "A good question"
        return "A"
    return "B" if named == {"B"} else None
