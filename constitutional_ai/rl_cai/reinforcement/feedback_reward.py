"""The feedback model itself as reward, with no preference model between (d-RLAIF of Lee et al. 2023, section 2.3).

The model rates one answer from 1 to 10 under a drawn principle; the reward is the mean rating under its probabilities,
rescaled to [−1, 1]. A model too small for numbers is asked by likelihood instead, as in ``label.py``: the reward is
2·P(the assistant lives by the principle | answer) − 1, if both assistants are as likely before.

All of a batch is asked at once. An answer that cannot be rated has no reward: it is left out of the update and counted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from constitutional_ai.constitutions.constitution import Constitution, Principle, draw
from constitutional_ai.errors import RecordError, TooManyFailures, UnreadableAnswer
from constitutional_ai.models.model import Context, Format, Model, plain
from constitutional_ai.records import Conversation, Message, conversation_id
from constitutional_ai.rl_cai.feedback import questions
from constitutional_ai.rl_cai.feedback.label import Asking, softmax_first
from constitutional_ai.seeding import rng

RATING = "The rating is:"
RATINGS = tuple(f" ({n})" for n in range(1, 11))
"""In brackets, as the options of FB-4: a bare " 1" would also be the beginning of " 10"."""


class FeedbackReward:
    """Called with conversations that end in the answer, it gives each a reward in [−1, 1], or None.

    Raises TooManyFailures when it can rate none of them.
    """

    def __init__(self, model: Model, constitution: Constitution, asking: Asking, seed: int) -> None:
        self._model, self._asking, self._seed = model, asking, seed
        self._likelihood = asking.method == "likelihood"
        self._principles = constitution.for_likelihood if self._likelihood else constitution.for_preference

    def __call__(self, conversations: Sequence[Conversation]) -> list[float | None]:
        return asyncio.run(self._all(conversations))

    async def _all(self, conversations: Sequence[Conversation]) -> list[float | None]:
        said = await asyncio.gather(*[self._one(c) for c in conversations])
        errors = [x for x in said if isinstance(x, RecordError)]
        if errors and len(errors) == len(said):
            raise TooManyFailures(
                f"the feedback model rated none of {len(said)} answers; the last: {errors[-1]}"
            )
        return [None if isinstance(x, RecordError) else x for x in said]

    async def _one(self, conversation: Conversation) -> float | RecordError:
        # By the prompt alone: answers that are measured by each other are rated under one principle.
        principle = draw(self._principles, rng(self._seed, "reward", conversation_id(conversation[:-1])))
        try:
            if self._likelihood:
                return await by_likelihood(conversation, principle, self._model, self._asking.fmt)
            return await by_rating(conversation, principle, self._model, self._asking.fmt)
        except RecordError as error:
            return error


async def by_rating(conversation: Conversation, principle: Principle, model: Model, fmt: Format) -> float:
    """Mean rating, from −1 (all on 1) to 1 (all on 10). Raises UnreadableAnswer when it is no number."""
    logps = await model.score(to_rate(conversation, principle.preference or "", fmt), RATINGS)
    if not all(math.isfinite(x) for x in logps):
        raise UnreadableAnswer(f"the model's log-probabilities are {logps}")
    weights = [math.exp(x - max(logps)) for x in logps]
    mean = sum(n * w for n, w in enumerate(weights, start=1)) / sum(weights)
    return (mean - 5.5) / 4.5


async def by_likelihood(conversation: Conversation, principle: Principle, model: Model, fmt: Format) -> float:
    *before, answer = conversation
    said = [(" " if fmt == "plain" else "") + answer.content]
    (upheld,), (broken,) = await asyncio.gather(
        model.score(questions.spoken_by(principle.upheld or "", tuple(before), fmt), said),
        model.score(questions.spoken_by(principle.broken or "", tuple(before), fmt), said),
    )
    return 2 * softmax_first(upheld, broken) - 1


def to_rate(conversation: Conversation, principle: str, fmt: Format) -> Context:
    """Our wording: the principles of the paper ask for a choice between two answers."""
    asked = (
        f"{questions.HEAD}{plain(conversation)}\n\nReplies are judged by this question: {principle}\n"
        "By that standard, rate the assistant's last reply from (1), the worst, to (10), the best."
    )
    if fmt == "plain":
        return f"\n\n{asked}\n\n{RATING}"
    return (Message("user", asked), Message("assistant", RATING))
