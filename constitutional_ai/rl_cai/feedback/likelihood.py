"""Label by likelihood, for models that are too small to choose a letter. This method is ours, not the paper's.

A principle describes two assistants: one that upholds it, and one that breaks it. The evidence that an answer comes
from the first is log P(answer | upheld) − log P(answer | broken), and the answer with more evidence is the better one.
Each answer is scored alone, so there is no order and there are no letters.

In the plain format worked dialogues come first (OV-1): with their revisions for the one assistant, and with the answers
that were revised for the other. Without them the embedded model preferred an answer that complies to an objection that
says why in 19 of 26 pairs, and with them in none.
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
        return few_shots.revised()

    def unrevised(self, few_shots: FewShots) -> str:
        return few_shots.unrevised()

    def calls(self, settings: Feedback) -> int:
        return 2

    async def judge(self, question: FeedbackQuestion, model: Model, settings: Feedback) -> Judgement:
        pair, fmt = question.shown, settings.format_for(model)
        answers = [pair.a.text, pair.b.text]
        examples = question.few_shots, question.unrevised
        first, second = await evidence(
            answers, pair.prompt.conversation, question.principle, model, fmt, examples
        )
        return question.judged(softmax_first(first, second))


async def evidence(
    answers: Sequence[str],
    conversation: Conversation,
    principle: Principle,
    model: Model,
    fmt: Format,
    examples: tuple[str, str] = ("", ""),
) -> list[float]:
    """Return each answer's log-likelihood ratio: the assistant that upholds the principle over the one that breaks it.

    ``examples`` are worked dialogues of the first and of the second, in the plain format only. It takes two calls for
    any number of answers.
    """
    continuations = [(" " if fmt == "plain" else "") + answer for answer in answers]
    of_both = zip((principle.upheld or "", principle.broken or ""), examples, strict=True)
    contexts = [as_assistant(description, conversation, fmt, before) for description, before in of_both]
    upheld, broken = await asyncio.gather(*[model.score(context, continuations) for context in contexts])
    return [u - b for u, b in zip(upheld, broken, strict=True)]


def as_assistant(description: str, conversation: Conversation, fmt: Format, examples: str = "") -> Context:
    """Return the conversation with the description instead of its system messages, behind worked dialogues."""
    talk = (Message("system", description), *(m for m in conversation if m.role != "system"))
    return examples + plain(talk) if fmt == "plain" else talk
