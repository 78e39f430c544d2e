"""Use the feedback model's ratings as reward, without a preference model (d-RLAIF of Lee et al. 2023, section 2.3).

The model rates one answer from 1 to 10 under a random principle. The reward is the expected rating under the model's
probabilities, rescaled to [−1, 1]. With the method likelihood, whose principles describe two assistants, the reward is
2·P(the assistant upholds the principle | answer) − 1, with equal prior probabilities of both assistants, behind worked
dialogues in the plain format, as for labels. The method decision asks the model's server a score question with five
levels.

All answers of a batch are rated at once. An answer that cannot be rated is left out of the update, and counted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from constitutional_ai.constitutions.constitution import Principle, draw
from constitutional_ai.errors import RecordError, UnreadableAnswer
from constitutional_ai.models.abilities import DecisionQuestion, decider
from constitutional_ai.models.model import Context, Format, Model, plain
from constitutional_ai.records import Conversation, Message, conversation_id
from constitutional_ai.rl_cai.feedback import questions
from constitutional_ai.rl_cai.feedback.decision import Decision, readable, state_of
from constitutional_ai.rl_cai.feedback.likelihood import evidence
from constitutional_ai.rl_cai.feedback.multiple_choice import softmax_first
from constitutional_ai.rl_cai.reinforcement.judged_reward import JudgedReward
from constitutional_ai.seeding import rng

Rate = Callable[[Conversation, Principle, Model, Format], Awaitable[float]]

RATING = "The rating is:"
RATINGS = tuple(f" ({n})" for n in range(1, 11))
"""The ratings are in brackets, like the options of FB-4, because a bare " 1" is also a prefix of " 10"."""
LEVELS = ("very bad", "bad", "middling", "good", "very good")
"""The levels of a score question are words, because servers number them from 0, from 1 or by letters."""


class FeedbackReward(JudgedReward):
    """A function that gives each conversation's last answer a reward in [−1, 1], or None."""

    @property
    def rate(self) -> Rate:
        """How one answer is rated."""
        if self.method.needs_assistants:
            return partial(by_likelihood, examples=self.dialogues)
        return by_level if self.method.name == Decision.name else by_rating

    @property
    def dialogues(self) -> tuple[str, str]:
        """The worked dialogues of both assistants, as before labels: in the plain format only."""
        if self.few_shots is None or self.settings.format_for(self.model) != "plain":
            return "", ""
        return self.few_shots.revised(), self.few_shots.unrevised()

    async def judge(self, conversations: Sequence[Conversation]) -> Sequence[float | RecordError]:
        return await asyncio.gather(*[self._one(talk) for talk in conversations])

    async def _one(self, talk: Conversation) -> float | RecordError:
        before = talk[:-1]
        principles = self.applying(before, self.method.principles(self.constitution))
        # The principle is drawn per prompt, because answers that are compared must be rated under the same one.
        principle = draw(principles, rng(self.seed, "reward", conversation_id(before)))
        try:
            return await self.rate(talk, principle, self.model, self.settings.format_for(self.model))
        except RecordError as error:
            return error


async def by_rating(conversation: Conversation, principle: Principle, model: Model, fmt: Format) -> float:
    """Return the expected rating, from −1 (always 1) to 1 (always 10). Raises UnreadableAnswer if it is not finite."""
    logps = await model.score(to_rate(conversation, principle.preference or "", fmt), RATINGS)
    if not all(math.isfinite(x) for x in logps):
        raise UnreadableAnswer(f"the model's log-probabilities are {logps}")
    weights = [math.exp(x - max(logps)) for x in logps]
    mean = sum(n * w for n, w in enumerate(weights, start=1)) / sum(weights)
    return (mean - 5.5) / 4.5


async def by_level(conversation: Conversation, principle: Principle, model: Model, fmt: Format) -> float:
    """Return the expected level, from −1 (always the lowest) to 1. Raises LowLabelMass or RefusedAnswer."""
    text = f"{judged_by(principle.preference or '')} how good is the assistant's last reply?"
    question = DecisionQuestion("score", text, LEVELS)
    reading = readable(await decider(model).decide(state_of(conversation), question))
    highest = len(LEVELS) - 1
    return 2 * sum(n * p for n, p in enumerate(reading.probabilities)) / highest - 1


async def by_likelihood(
    conversation: Conversation,
    principle: Principle,
    model: Model,
    fmt: Format,
    examples: tuple[str, str] = ("", ""),
) -> float:
    """Return 2·P(the assistant upholds the principle | answer) − 1. Raises UnreadableAnswer if it is not finite.

    ``examples`` are worked dialogues of both assistants, in the plain format only.
    """
    *before, answer = conversation
    (upholds,) = await evidence([answer.content], tuple(before), principle, model, fmt, examples)
    return 2 * softmax_first(upholds, 0.0) - 1


def to_rate(conversation: Conversation, principle: str, fmt: Format) -> Context:
    """Return the context before ``RATINGS``. The wording is ours: the paper's principles compare two answers."""
    text = (
        f"{questions.HEAD}{plain(conversation)}\n\n{judged_by(principle)} rate the assistant's last reply from (1), "
        "the worst, to (10), the best."
    )
    if fmt == "plain":
        return f"\n\n{text}\n\n{RATING}"
    return (Message("user", text), Message("assistant", RATING))


def judged_by(principle: str) -> str:
    """Return the beginning of a sentence that asks about one reply under a principle that compares two."""
    return f"Replies are judged by this question: {principle}\nBy that standard,"
