"""Label by votes of a model that gives no log-probabilities, as most hosted chat models. Ours, not the paper's.

The share of sampled replies that name an option replaces its probability, and is coarser than FB-5. A reply that names
no option, or both, is not a vote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from constitutional_ai.errors import OnlyThought, RefusedAnswer, UnreadableAnswer
from constitutional_ai.models.model import Context, Format, Model, Sampling
from constitutional_ai.records import Comparison, Completion, Judgement, total
from constitutional_ai.rl_cai.feedback import questions
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod, FeedbackQuestion
from constitutional_ai.rl_cai.feedback.read_vote import read_vote
from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.seeding import seed_of

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
        replies = await asyncio.gather(*[_reply(model, context, draw) for draw in draws])
        given = [reply for reply in replies if isinstance(reply, Completion)]
        if not given:
            raise next(reply for reply in replies if isinstance(reply, OnlyThought))
        share = share_of_first([reply.text if isinstance(reply, Completion) else "" for reply in replies])
        return question.judged(share, cost=total(given), thought=thoughts(given))


async def _reply(model: Model, context: Context, sampling: Sampling) -> Completion | OnlyThought:
    """Return a reply. One that is only a thought is no vote, and spoils none of the others."""
    try:
        return await model.generate(context, sampling)
    except OnlyThought as error:
        return error


def thoughts(replies: Sequence[Completion]) -> str | None:
    """Return what the model thought before its votes; None if it did not think."""
    return "\n\n".join(reply.thought for reply in replies if reply.thought) or None


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
    return questions.to_say(conversation, principle, a, b)
