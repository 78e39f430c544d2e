"""Label by multiple choice, the paper's feedback method (section 4.1; FB-4, FB-5)."""

from __future__ import annotations

import math

from constitutional_ai.errors import UnreadableAnswer
from constitutional_ai.models.model import Model
from constitutional_ai.records import Judgement
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod, FeedbackQuestion
from constitutional_ai.rl_cai.feedback.questions import CHOICES, to_choose
from constitutional_ai.rl_cai.feedback.settings import Feedback


class MultipleChoice(FeedbackMethod):
    """The question shows both answers as (A) and (B), and the model gives the log-probabilities of both letters."""

    name = "multiple_choice"

    async def judge(self, question: FeedbackQuestion, model: Model, settings: Feedback) -> Judgement:
        pair, principle = question.shown, question.principle.preference or ""
        fmt = settings.format_for(model)
        context = to_choose(
            pair.prompt.conversation, principle, pair.a.text, pair.b.text, fmt, question.few_shots
        )
        first, second = await model.score(context, CHOICES)
        return question.judged(softmax_first(first, second))


def softmax_first(first: float, second: float) -> float:
    """Return e^first / (e^first + e^second), in [0, 1] and without overflow.

    Raises UnreadableAnswer if a log-probability is infinite or NaN, which never becomes a label.
    """
    if not (math.isfinite(first) and math.isfinite(second)):
        raise UnreadableAnswer(f"the model's log-probabilities are {first} and {second}")
    return 1.0 / (1.0 + math.exp(min(700.0, second - first)))
