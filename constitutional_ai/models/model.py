"""The interface of a model: two methods.

In-process engines, servers, caches and test doubles implement it, and so can any object of yours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from constitutional_ai.records import Completion, Conversation

Format = Literal["chat", "plain"]

Context = Conversation | str
"""A prompt. A conversation is rendered by the model's chat template (or in the paper's plain format); if its last turn
is the assistant's, that turn is continued. A string is continued as it is."""

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
STOP_STRINGS = ("\n\nHuman:", "\nHuman:", "<EOT>")
"""Strings that show that a model in the plain format begins to write the human's turn (pitfall 17)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Settings for sampling a completion. ``seed`` fixes the result, whatever other requests are in the batch."""

    temperature: float = 1.0
    """0 is greedy. The paper always samples at 1 (SL-10)."""
    max_tokens: int = 128
    seed: int = 0
    stop: tuple[str, ...] = ()
    thinking: int = 0
    """Tokens that the model may spend on a thought, beside ``max_tokens``. 0 switches thinking off where it can be."""


class Model(Protocol):
    """A language model."""

    @property
    def name(self) -> str: ...

    @property
    def format(self) -> Format:
        """``chat`` when the model has a chat template of its own, else ``plain``."""
        ...

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        """Return a completion of ``context``. Raises RecordError when this one request cannot be answered."""
        ...

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        """Return the natural log-probability of each *whole* continuation right after ``context`` (pitfall 5)."""
        ...


def plain(conversation: Conversation) -> str:
    r"""Return a conversation in the paper's plain format, which ends where the assistant continues.

    >>> from constitutional_ai.records import Message
    >>> plain((Message("user", "Hi"),))
    '\n\nHuman: Hi\n\nAssistant:'
    """
    turns = {"system": "\n\nSystem: ", "user": HUMAN + " ", "assistant": ASSISTANT + " "}
    text = "".join(turns[m.role] + m.content for m in conversation)
    return text if conversation and conversation[-1].role == "assistant" else text + ASSISTANT


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop string, and whether there was one."""
    starts = [at for at in (text.find(s) for s in stop if s) if at >= 0]
    return (text[: min(starts)], True) if starts else (text, False)
