"""Label by chain of thought: the feedback model reasons before it chooses (section 4.1; FB-10 to FB-13).

After the reasoning, a turn of its own asks for the letter (FB-11). That turn is in the paper's released prompts, but
not in its text (pitfall 6). After reasoning, a model is nearly certain of its choice, so labels are clamped to [0.40,
0.60] (FB-13). Labels of other methods are not clamped (pitfall 4).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from constitutional_ai.constitutions.constitution import Principle
from constitutional_ai.errors import EmptyAnswer, RefusedAnswer
from constitutional_ai.models.model import STOP_STRINGS, Context, Format, Model, Sampling
from constitutional_ai.records import Completion, Conversation, Judgement, Message, usage
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod, FeedbackQuestion
from constitutional_ai.rl_cai.feedback.multiple_choice import softmax_first
from constitutional_ai.rl_cai.feedback.questions import CHOICES
from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots

HEAD = "Consider the following conversation between a human (H) and an assistant (A):"
THINK = "Let's think step by step:"
SO = "So the answer is:"


class ChainOfThought(FeedbackMethod):
    """The model writes its reasoning, then gives the log-probabilities of both letters."""

    name = "chain_of_thought"
    samples_text = True

    def worked_examples(
        self, few_shots: FewShots, principles: Sequence[Principle], draws: random.Random
    ) -> str:
        return few_shots.chain_of_thought(principles, draws)

    def repeats(self, settings: Feedback) -> int:
        return settings.chains

    def calls(self, settings: Feedback) -> int:
        return 2

    async def judge(self, question: FeedbackQuestion, model: Model, settings: Feedback) -> Judgement:
        """Sample one chain of thought, and score both letters after it."""
        pair, principle, few_shots = question.shown, question.principle.preference or "", question.few_shots
        fmt = settings.format_for(model)
        text = question_for_reasoning(pair.prompt.conversation, principle, pair.a.text, pair.b.text)
        thought = await think(model, text, fmt, settings.sampling(question.seed), few_shots)
        first, second = await model.score(to_answer(text, thought.text, fmt, few_shots), CHOICES)
        return question.judged(softmax_first(first, second), thought.text, usage(thought), thought.thought)

    def soft_label(self, mean: float, settings: Feedback) -> float:
        """Clamp the label; it is not rescaled (FB-13, pitfall 4)."""
        low, high = settings.clamp
        return min(max(mean, low), high)


def question_for_reasoning(conversation: Conversation, principle: str, first: str, second: str) -> str:
    """Return the question of FB-11: that of FB-4, but each speaker is named by a first letter."""
    letters = {"user": "H", "assistant": "A", "system": "S"}
    talk = "".join(f"\n\n{letters[m.role]}: {m.content}" for m in conversation)
    return f"{HEAD}{talk}\n\n\n{principle} Options:\n (A) [[[{first}]]]\n (B) [[[{second}]]]"


async def think(
    model: Model, question: str, fmt: Format, sampling: Sampling, few_shots: str = ""
) -> Completion:
    """Sample the model's reasoning about a question.

    Raises EmptyAnswer, or RefusedAnswer because the letters' probabilities after a refusal say nothing about the
    answers.
    """
    sampling = replace(sampling, stop=STOP_STRINGS if fmt == "plain" else ())
    thought = await model.generate(to_think(question, fmt, few_shots), sampling)
    if not thought.text:
        raise EmptyAnswer("the model gave no reasoning")
    if refuses_to_judge(thought.text):
        raise RefusedAnswer(f"the model refused to judge: {thought.text[:80]!r}")
    return thought


def to_think(question: str, fmt: Format, few_shots: str = "") -> Context:
    """Return the context that the model continues with its reasoning."""
    if fmt == "plain":
        return f"{few_shots}\n\nHuman: {question}\n\nAssistant: {THINK}"
    return (Message("user", question), Message("assistant", THINK))


def to_answer(question: str, thought: str, fmt: Format, few_shots: str = "") -> Context:
    """Return the context after the reasoning, in which the two letters are scored."""
    if fmt == "plain":
        return f"{few_shots}\n\nHuman: {question}\n\nAssistant: {THINK} {thought}\n\nHuman:\n{SO}"
    return (Message("user", question), Message("assistant", f"{THINK} {thought}\n\n{SO}"))
