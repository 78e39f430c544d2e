"""Ask the feedback model a yes-or-no question about the last answer of a conversation. Ours, not the paper's.

Rule-based rewards (Mu et al. 2024) call such questions propositions, and ask for the probability of yes. Where letters
stand for yes and no, each is asked for in both orders, because a small model prefers a letter.
"""

from __future__ import annotations

import asyncio

from constitutional_ai.models.abilities import DecisionQuestion, ReadsLetters
from constitutional_ai.models.model import Context, Format, Model, plain
from constitutional_ai.records import Conversation, Message
from constitutional_ai.rl_cai.feedback import questions
from constitutional_ai.rl_cai.feedback.decision import Decision, readable
from constitutional_ai.rl_cai.feedback.multiple_choice import LETTERS, softmax_first
from constitutional_ai.rl_cai.feedback.predicates import probability_of
from constitutional_ai.rl_cai.feedback.settings import Feedback

WORDS = (" yes", " no")
ABOUT = "Answer yes or no, about the assistant's last reply."


async def probability_of_yes(
    conversation: Conversation, question: str, model: Model, settings: Feedback
) -> float:
    """Return P(yes), in [0, 1], of a question about the conversation's last answer.

    The method decision asks the model's server a predicate; a chat server that scores nothing is asked for letters.
    Raises UnreadableAnswer if the log-probabilities are not finite, or another RecordError without an answer.
    """
    if settings.method == Decision.name:
        text = (
            f"Is it true that this question about the assistant's last reply is answered with yes? {question}"
        )
        return await probability_of(DecisionQuestion("predicate", text), conversation, model)
    fmt = settings.format_for(model)
    if fmt == "chat" and isinstance(model, ReadsLetters):
        yes_first, no_first = await asyncio.gather(
            *[_first_letter(conversation, question, options, model) for options in (WORDS, WORDS[::-1])]
        )
        return (yes_first + 1 - no_first) / 2
    return softmax_first(*await model.score(to_answer_yes(conversation, question, fmt), WORDS))


async def _first_letter(
    conversation: Conversation, question: str, options: tuple[str, str], model: ReadsLetters
) -> float:
    first, second = options
    text = f"{_about(conversation, question)}\n (A){first}\n (B){second}\n\nAnswer with (A) or (B) and nothing else."
    return readable(await model.letters((Message("user", text),), LETTERS)).probabilities[0]


def to_answer_yes(conversation: Conversation, question: str, fmt: Format) -> Context:
    """Return the context before ``WORDS``."""
    text = _about(conversation, question)
    if fmt == "plain":
        return f"\n\n{text}\n\n{questions.ANSWER}"
    return (Message("user", text), Message("assistant", questions.ANSWER))


def _about(conversation: Conversation, question: str) -> str:
    return f"{questions.HEAD}{plain(conversation)}\n\n{question} {ABOUT}"
