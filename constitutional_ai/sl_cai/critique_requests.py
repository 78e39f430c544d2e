"""Write critique requests and revision requests, in the model's chat format or the paper's plain text (SL-6).

Texts of users and models are only concatenated, never used as format strings: a prompt may hold any ``{braces}``.
"""

from __future__ import annotations

from constitutional_ai.models.model import ASSISTANT, Context, Format, plain
from constitutional_ai.records import Conversation, Message

NEXT = ("\n\nRevisionRequest:", "\n\nCritiqueRequest:", "\n\nCritique:", "\n\nRevision:")
STOPS = ("\nHuman:", "<EOT>", *NEXT)
"""Stop strings that end a critique or revision in plain text, the likeliest first: a server receives only the first
four, and text is cut at the others on this machine. ``\\nHuman:`` also matches ``\\n\\nHuman:``."""


def to_critique(conversation: Conversation, answer: str, request: str, fmt: Format) -> Context:
    """Return the context in which the model writes a critique of ``answer``."""
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
    """Return the context in which the model writes a revision of ``answer``.

    ``critique`` is (critique request, critique); None for a direct revision (SL-14).
    """
    if fmt == "plain":
        before = f"\n\nCritiqueRequest: {critique[0]}\n\nCritique: {critique[1]}" if critique else ""
        return f"{answered(conversation, answer)}{before}\n\nRevisionRequest: {request}\n\nRevision:"
    turns: Conversation = (*conversation, Message("assistant", answer))
    if critique:
        turns = (*turns, Message("user", critique[0]), Message("assistant", critique[1]))
    return (*turns, Message("user", request))


def to_answer_again(conversation: Conversation, request: str) -> Conversation:
    """Return the prompt with the revision request in it, for models too small to revise an answer."""
    *before, last = conversation
    return (*before, Message("user", f"{last.content}\n\n({request})"))


def answered(conversation: Conversation, answer: str) -> str:
    """Return a conversation and its answer as plain text."""
    return f"{plain(conversation).removesuffix(ASSISTANT)}{ASSISTANT} {answer}"
