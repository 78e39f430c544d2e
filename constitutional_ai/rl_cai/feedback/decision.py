"""Label by decision: a typed question to a server's decision endpoint. Ours, not the paper's.

The server words the question in the model's own chat template and reads the labels' probabilities in one forward pass.
That is FB-5 in another wording, and so another judge, to be audited by itself. Both answers are options of a choice,
and the one shown first may have an advantage, so both orders count here too (FB-8).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from constitutional_ai.constitutions.constitution import Principle
from constitutional_ai.errors import LowLabelMass, RefusedAnswer
from constitutional_ai.models.abilities import DecisionQuestion, Reading, decider
from constitutional_ai.models.model import Model, plain
from constitutional_ai.records import Conversation, Judgement
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod, FeedbackQuestion
from constitutional_ai.rl_cai.feedback.questions import HEAD
from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots

LOWEST_MASS = 0.5
"""Probability that the labels must hold together. Below it the model would more likely say something else, and the
labels' shares of the rest are no judgement."""


class Decision(FeedbackMethod):
    """The model's server answers a choice between both answers."""

    name = "decision"
    needs_scores = False

    def worked_examples(
        self, few_shots: FewShots, principles: Sequence[Principle], draws: random.Random
    ) -> str:
        return ""

    async def judge(self, question: FeedbackQuestion, model: Model, settings: Feedback) -> Judgement:
        """Ask one choice. Raises RefusedAnswer for a refusal, and LowLabelMass if the labels hold too little."""
        pair = question.shown
        options = (pair.a.text, pair.b.text)
        choice = DecisionQuestion("choice", question.principle.preference or "", options)
        reading = readable(await decider(model).decide(state_of(pair.prompt.conversation), choice))
        return question.read(reading)


def state_of(conversation: Conversation) -> str:
    """Return a conversation as the text that a decision question is about."""
    talk = plain(conversation)
    return HEAD + (talk if conversation[-1].role == "assistant" else talk.removesuffix("\n\nAssistant:"))


def readable(reading: Reading) -> Reading:
    """Return a reading whose labels hold enough probability.

    Raises LowLabelMass if they do not, or RefusedAnswer if what the model said instead refuses to judge.
    """
    if reading.label_mass is None or reading.label_mass >= LOWEST_MASS:
        return reading
    if refuses_to_judge(reading.raw):
        raise RefusedAnswer(f"the feedback model refused to judge: {reading.raw[:80]!r}")
    raise LowLabelMass(
        f"the options hold {reading.label_mass:.2f} of the probability, less than {LOWEST_MASS}; "
        f"the answer: {reading.raw[:160]!r}"
    )
