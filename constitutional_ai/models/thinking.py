"""Tell a model's thought from its answer.

Most chat models of today think before they answer. A thought says "(A) tells how" and quotes what a refusal would say,
so a thought that is taken for an answer gives wrong votes, wrong verdicts and wrong training data.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from constitutional_ai.errors import OnlyThought
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Completion, FinishReason

OPENING = re.compile(r"\s*<think>")
CLOSING = re.compile(r"</think>")


class Reply(NamedTuple):
    """A model's text, in two parts."""

    thought: str | None
    """None if the model did not think."""
    answer: str
    """Empty if the thought was cut off."""


def split_thought(text: str, *, opened: bool = False) -> Reply:
    """Return the thought and the answer in what a model wrote, each without white space around it.

    ``opened`` says that the prompt itself opened a thought, as some chat templates do.

    >>> split_thought("<think>A tree, perhaps.</think>An oak.")
    Reply(thought='A tree, perhaps.', answer='An oak.')
    """
    opening, closing = OPENING.match(text), CLOSING.search(text)
    if not (opening or closing or opened):
        return Reply(None, text.strip())
    start = opening.end() if opening else 0
    if closing is None:
        return Reply(text[start:].strip(), "")
    return Reply(text[start : closing.start()].strip() or None, text[closing.end() :].strip())


def completion(
    reply: Reply, model: str, finish: FinishReason, prompt_tokens: int, tokens: int, sampling: Sampling
) -> Completion:
    """Return the completion of a model that may have thought. Raises OnlyThought if it gave no answer."""
    if reply.thought is not None and not reply.answer:
        limit = sampling.max_tokens + sampling.thinking
        how = f"spent its {limit} tokens thinking" if finish == "length" else "thought, and gave no answer"
        raise OnlyThought(f"the model {how}: raise thinking_tokens or max_tokens, or switch thinking off.")
    return Completion(reply.answer, model, finish, prompt_tokens, tokens, reply.thought)
