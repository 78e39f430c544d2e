"""Parse a conversation that a trainer or a data set keeps in one string.

Two formats are read: ChatML, whose turns keep their whitespace, and the paper's plain dialogue of ``Human:`` and
``Assistant:`` (SL-15), whose turns are stripped. A turn that the policy forged cannot be told from a real one, unless
the prompt is known: then everything after it is the answer, whatever it contains.
"""

from __future__ import annotations

import re

from constitutional_ai.records import Conversation, Message, Role

START = "<|im_start|>"
CHATML = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)(?:<\|im_end\|>\s*|\Z)", re.DOTALL)
END = re.compile(r"(?:<\|(?:im_end|endoftext|end_of_text|eot_id)\|>|<end_of_turn>|<eos>|</s>)\s*\Z")
"""End-of-sequence tokens that a trainer may leave in the text of an answer."""


def conversation_of(text: str, prompt: str = "") -> Conversation:
    """Return the turns of ``text``. If it begins with ``prompt``, the rest is one answer.

    >>> conversation_of("\\n\\nHuman: Hi\\n\\nAssistant: Hello</s>")
    (Message(role='user', content='Hi'), Message(role='assistant', content='Hello'))
    >>> conversation_of("2 + 2 = 4", prompt="2 + 2 =")
    (Message(role='user', content='2 + 2 ='), Message(role='assistant', content='4'))
    """
    if prompt and text.startswith(prompt):
        turns, start = split_prompt(prompt)
        answer = start + END.sub("", text.removeprefix(prompt))
        return (*turns, Message("assistant", answer if _is_chatml(prompt) else answer.strip()))
    if _is_chatml(text):
        return _parse_chatml(text)
    return tuple(
        m if m.role == "user" else Message(m.role, END.sub("", m.content).rstrip())
        for m in as_turns(text, "user")
    )


def split_prompt(prompt: str) -> tuple[Conversation, str]:
    """Return the turns before the answer, and the start of the answer if the prompt has one (usually ``""``)."""
    turns = _parse_chatml(prompt) if _is_chatml(prompt) else as_turns(prompt, "user")
    if turns and turns[-1].role == "assistant":
        return turns[:-1], turns[-1].content
    return turns, ""


def as_turns(text: str | Conversation, role: Role = "assistant") -> Conversation:
    r"""Return the turns of a dialogue "\n\nHuman: …\n\nAssistant: …".

    A conversation is returned as it is; other text is one turn of ``role``.
    """
    if not isinstance(text, str):
        return text
    before, *parts = re.split(r"\n\n(Human|Assistant):", "\n\n" + text.lstrip())
    if before or not parts:
        return (Message(role, text),)
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return tuple(
        Message(roles[speaker], turn.strip()) for speaker, turn in zip(parts[::2], parts[1::2], strict=True)
    )


def _is_chatml(text: str) -> bool:
    return text.lstrip().startswith(START)


def _parse_chatml(text: str) -> Conversation:
    """Return the turns; an empty tuple if there is other text between them."""
    turns, at, text = [], 0, text.lstrip()
    while at < len(text):
        turn = CHATML.match(text, at)
        if turn is None:
            return ()
        turns.append(Message(turn[1], turn[2]))  # type: ignore[arg-type]  # the pattern holds the three roles
        at = turn.end()
    return tuple(turns)
