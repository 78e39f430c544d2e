"""Label by likelihood, for models that are too small to choose a letter. This method is ours, not the paper's.

A principle describes two assistants: one that upholds it, and one that breaks it. The evidence that an answer comes
from the first is log P(answer | upheld) − log P(answer | broken), and the answer with more evidence is the better one.
Each answer is scored alone, so there is no order and there are no letters.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from constitutional_ai.constitutions.constitution import Principle
from constitutional_ai.models.model import Context, Format, Model, plain
from constitutional_ai.records import Conversation, Judgement, Message
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod, FeedbackQuestion
from constitutional_ai.rl_cai.feedback.multiple_choice import softmax_first
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots


class Likelihood(FeedbackMethod):
    """The model gives the log-probability of each answer as the reply of each assistant."""

    name = "likelihood"
    has_order = False
    needs_assistants = True

    def worked_examples(
        self, few_shots: FewShots, principles: Sequence[Principle], draws: random.Random
    ) -> str:
        return ""

    def calls(self, settings: Feedback) -> int:
        return 2

    async def judge(self, question: FeedbackQuestion, model: Model, settings: Feedback) -> Judgement:
        pair, fmt = question.shown, settings.format_for(model)
        answers = [pair.a.text, pair.b.text]
        first, second = await evidence(answers, pair.prompt.conversation, question.principle, model, fmt)
        return question.judged(softmax_first(first, second))


async def evidence(
    answers: Sequence[str], conversation: Conversation, principle: Principle, model: Model, fmt: Format
) -> list[float]:
    """Return each answer's log-likelihood ratio: the assistant that upholds the principle over the one that breaks it.

    It takes two calls for any number of answers.
    """
    continuations = [(" " if fmt == "plain" else "") + answer for answer in answers]
    upheld, broken = await asyncio.gather(
        model.score(as_assistant(principle.upheld or "", conversation, fmt), continuations),
        model.score(as_assistant(principle.broken or "", conversation, fmt), continuations),
    )
    return [u - b for u, b in zip(upheld, broken, strict=True)]


def as_assistant(description: str, conversation: Conversation, fmt: Format) -> Context:
    """Return the conversation with the description instead of its system messages."""
    talk = (Message("system", description), *(m for m in conversation if m.role != "system"))
    return plain(talk) if fmt == "plain" else talk
