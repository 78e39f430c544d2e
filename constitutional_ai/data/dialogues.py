"""Conversations in the one string that trainers make of them, read back into turns.

Two formats are read: ChatML, exactly, and the paper's plain dialogue of ``Human:`` and ``Assistant:`` (SL-15), without
the white space at the ends of a turn. In a string alone, a turn that the policy forged looks like any other; where the
prompt is known, all that follows it is the answer, whatever it says.
"""

from __future__ import annotations

import re

from constitutional_ai.records import Conversation, Message, Role

START = "<|im_start|>"
CHATML = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)(?:<\|im_end\|>\s*|\Z)", re.DOTALL)
END = re.compile(r"(?:<\|(?:im_end|endoftext|end_of_text|eot_id)\|>|<end_of_turn>|<eos>|</s>)\s*\Z")
"""What a policy ends its answer with, where the trainer leaves it in the text."""


def conversation_of(text: str, prompt: str = "") -> Conversation:
    """The turns of ``text``; its answer is all that follows ``prompt``, where it begins with that.

    >>> conversation_of("\\n\\nHuman: Hi\\n\\nAssistant: Hello</s>")
    (Message(role='user', content='Hi'), Message(role='assistant', content='Hello'))
    >>> conversation_of("2 + 2 = 4", prompt="2 + 2 =")
    (Message(role='user', content='2 + 2 ='), Message(role='assistant', content='4'))
    """
    if prompt and text.startswith(prompt):
        before, begun = split_prompt(prompt)
        answer = begun + END.sub("", text.removeprefix(prompt))
        return (*before, Message("assistant", answer if _is_chatml(prompt) else answer.strip()))
    if _is_chatml(text):
        return _chatml(text)
    return tuple(m if m.role == "user" else Message(m.role, _ended(m.content)) for m in as_turns(text, "user"))


def split_prompt(prompt: str) -> tuple[Conversation, str]:
    """The turns before the answer, and what the prompt already says of the answer, which is mostly nothing."""
    read = _chatml(prompt) if _is_chatml(prompt) else as_turns(prompt, "user")
    begun = read[-1].content if read and read[-1].role == "assistant" else None
    return (read, "") if begun is None else (read[:-1], begun)


def _is_chatml(text: str) -> bool:
    return text.lstrip().startswith(START)


def _chatml(text: str) -> Conversation:
    """No turns at all when something stands between them."""
    read, at, text = [], 0, text.lstrip()
    while at < len(text):
        turn = CHATML.match(text, at)
        if turn is None:
            return ()
        read.append(Message(turn[1], turn[2]))  # type: ignore[arg-type]  # the pattern holds the three roles
        at = turn.end()
    return tuple(read)


def _ended(text: str) -> str:
    return END.sub("", text).rstrip()


def as_turns(said: str | Conversation, role: Role = "assistant") -> Conversation:
    r"""A conversation as it is; a dialogue of "\n\nHuman: …\n\nAssistant: …" by its turns; other text as one."""
    if not isinstance(said, str):
        return said
    before, *parts = re.split(r"\n\n(Human|Assistant):", "\n\n" + said.lstrip())
    if before or not parts:
        return (Message(role, said),)
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], text.strip()) for who, text in zip(parts[::2], parts[1::2], strict=True))
