"""Chain-of-thought feedback: the feedback model reasons before it chooses (section 4.1; FB-10 to FB-13).

The answer is asked for in a turn of its own after the reasoning (FB-11); that line stands only in the paper's released
prompts, not in its text (pitfall 6). A model that has talked itself into an answer is sure of it, so labels are
clamped to [0.40, 0.60] (FB-13); only labels made this way are (pitfall 4).
"""

from __future__ import annotations

from typing import NamedTuple

from constitutional_ai.errors import EmptyAnswer, RefusedAnswer
from constitutional_ai.models.model import STOP_STRINGS, Context, Format, Model, Sampling
from constitutional_ai.records import Comparison, Conversation, Message, Usage, usage
from constitutional_ai.rl_cai.feedback.questions import CHOICES
from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge

HEAD = "Consider the following conversation between a human (H) and an assistant (A):"
THINK = "Let's think step by step:"
SO = "So the answer is:"


class Reasoned(NamedTuple):
    text: str
    first: float
    """Log-probability of " (A)" after the reasoning."""
    second: float
    usage: Usage
    """Of the reasoning alone."""


async def reason(
    comparison: Comparison,
    principle: str,
    model: Model,
    fmt: Format,
    sampling: Sampling,
    few_shots: str = "",
) -> Reasoned:
    """One sampled chain of thought about a comparison, and the scores of both options after it.

    Raises RefusedAnswer when it is a refusal: the letters' probabilities after one say nothing of the answers.
    """
    asked = question(comparison.prompt.conversation, principle, comparison.a.text, comparison.b.text)
    stop = STOP_STRINGS if fmt == "plain" else ()
    thought = await model.generate(
        to_think(asked, fmt, few_shots),
        Sampling(
            temperature=sampling.temperature, max_tokens=sampling.max_tokens, seed=sampling.seed, stop=stop
        ),
    )
    if not thought.text:
        raise EmptyAnswer("the feedback model gave no reasoning")
    if refuses_to_judge(thought.text):
        raise RefusedAnswer(f"the feedback model refuses to judge: {thought.text[:80]!r}")
    first, second = await model.score(to_answer(asked, thought.text, fmt, few_shots), CHOICES)
    return Reasoned(thought.text, first, second, usage(thought))


def question(conversation: Conversation, principle: str, first: str, second: str) -> str:
    """The question of FB-11: the same options as without reasoning, speakers by their first letters."""
    letters = {"user": "H", "assistant": "A", "system": "S"}
    talk = "".join(f"\n\n{letters[m.role]}: {m.content}" for m in conversation)
    return f"{HEAD}{talk}\n\n\n{principle} Options:\n (A) [[[{first}]]]\n (B) [[[{second}]]]"


def to_think(asked: str, fmt: Format, few_shots: str = "") -> Context:
    if fmt == "plain":
        return f"{few_shots}\n\nHuman: {asked}\n\nAssistant: {THINK}"
    return (Message("user", asked), Message("assistant", THINK))


def to_answer(asked: str, thought: str, fmt: Format, few_shots: str = "") -> Context:
    if fmt == "plain":
        return f"{few_shots}\n\nHuman: {asked}\n\nAssistant: {THINK} {thought}\n\nHuman:\n{SO}"
    return (Message("user", asked), Message("assistant", f"{THINK} {thought}\n\n{SO}"))
