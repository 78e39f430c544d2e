"""The texts around critiques and revisions, in the model's own chat format or the paper's plain text (SL-6).

User and model text is only ever joined, never a format string: a prompt may hold any ``{braces}``.
"""

from __future__ import annotations

from constitutional_ai.models.model import ASSISTANT, Context, Format, plain
from constitutional_ai.records import Conversation, Message

NEXT = ("\n\nRevisionRequest:", "\n\nCritiqueRequest:", "\n\nCritique:", "\n\nRevision:")
STOPS = ("\nHuman:", "<EOT>", *NEXT)
"""In plain text nothing else tells where a critique or revision ends. The likeliest first: a server is sent but four,
and what it says beyond the others is cut off. ``\\nHuman:`` stops at ``\\n\\nHuman:`` too."""


def to_critique(conversation: Conversation, answer: str, request: str, fmt: Format) -> Context:
    if fmt == "plain":
        return f"{answered(conversation, answer)}\n\nCritiqueRequest: {request}\n\nCritique:"
    return (*conversation, Message("assistant", answer), Message("user", request))


def to_revise(
    conversation: Conversation,
    answer: str,
    critique: tuple[str, str] | None,
    request: str,
    fmt: Format,
) -> Context:
    """``critique`` is (request, text); None for a direct revision (SL-14)."""
    if fmt == "plain":
        asked = f"\n\nCritiqueRequest: {critique[0]}\n\nCritique: {critique[1]}" if critique else ""
        return f"{answered(conversation, answer)}{asked}\n\nRevisionRequest: {request}\n\nRevision:"
    turns: Conversation = (*conversation, Message("assistant", answer))
    if critique:
        turns = (*turns, Message("user", critique[0]), Message("assistant", critique[1]))
    return (*turns, Message("user", request))


def to_answer_again(conversation: Conversation, request: str) -> Conversation:
    """The prompt once more, with the principle in it: what a model too small to revise can still do."""
    *before, last = conversation
    return (*before, Message("user", f"{last.content}\n\n({request})"))


def answered(conversation: Conversation, answer: str) -> str:
    return f"{plain(conversation).removesuffix(ASSISTANT)}{ASSISTANT} {answer}"
