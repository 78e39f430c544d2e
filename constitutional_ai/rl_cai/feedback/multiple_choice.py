"""Label by multiple choice, the paper's feedback method (section 4.1; FB-4, FB-5).

A chat server scores no continuations. Where it tells how probable the first tokens of its answer were, both letters are
read from those, after a question that asks for a letter and nothing else.
"""

from __future__ import annotations

import math

from constitutional_ai.errors import UnreadableAnswer
from constitutional_ai.models.abilities import ReadsLetters
from constitutional_ai.models.model import Model
from constitutional_ai.records import Judgement
from constitutional_ai.rl_cai.feedback.decision import readable
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod, FeedbackQuestion
from constitutional_ai.rl_cai.feedback.questions import CHOICES, to_choose, to_say
from constitutional_ai.rl_cai.feedback.settings import Feedback

LETTERS = ("A", "B")


class MultipleChoice(FeedbackMethod):
    """The question shows both answers as (A) and (B), and the model gives the log-probabilities of both letters."""

    name = "multiple_choice"
    reads_letters = True

    async def judge(self, question: FeedbackQuestion, model: Model, settings: Feedback) -> Judgement:
        """Ask one question. Raises LowLabelMass or RefusedAnswer if a server's answer begins with neither letter."""
        pair, principle = question.shown, question.principle.preference or ""
        fmt = settings.format_for(model)
        if fmt == "chat" and isinstance(model, ReadsLetters):
            talk = to_say(pair.prompt.conversation, principle, pair.a.text, pair.b.text)
            return question.read(readable(await model.letters(talk, LETTERS)))
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
