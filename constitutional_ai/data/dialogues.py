"""Parse a conversation that a trainer or a data set keeps in one string.

It is what a chat template rendered (``data/rendered.py``), or the paper's plain dialogue of ``Human:`` and
``Assistant:`` (SL-15), with ``System:`` as in our plain template. The turns of a plain dialogue are stripped. A turn
that the policy forged cannot be told from a real one, unless the prompt is known: then everything after it is the
answer, whatever it contains.
"""

from __future__ import annotations

import re

from constitutional_ai.data import rendered
from constitutional_ai.errors import RecordError
from constitutional_ai.records import Conversation, Message, Role

SPEAKERS: dict[str, Role] = {"System": "system", "Human": "user", "Assistant": "assistant"}
OPENING = re.compile(rf"\n\n({'|'.join(SPEAKERS)}):")
ANSWER = re.compile(r"\s*\n\nAssistant:")
"""What opens the answer where the prompt ends with the human turn."""


def conversation_of(text: str, prompt: str = "") -> Conversation:
    """Return the turns of ``text``. If it begins with ``prompt``, the rest is one answer.

    Raises RecordError if a control token is left in a turn, or in the prompt, or if a plain dialogue as the prompt ends
    within a word of the human turn.

    >>> conversation_of("\\n\\nHuman: Hi\\n\\nAssistant: Hello</s>")
    (Message(role='user', content='Hi'), Message(role='assistant', content='Hello'))
    >>> conversation_of("<s>2 + 2 = 4", prompt="2 + 2 =")
    (Message(role='user', content='2 + 2 ='), Message(role='assistant', content='4'))
    """
    begins, whole = map(rendered.without_padding_before, (prompt, text))
    if begins and whole.startswith(begins):
        return _with_answer(prompt, whole.removeprefix(begins))
    if family := rendered.family_of(text):
        return rendered.parse(text, family)[0]
    dialogue = as_turns(rendered.without_padding(text), "user")
    turns = [Message(m.role, rendered.without_padding(m.content).rstrip()) for m in dialogue]
    for turn in turns:
        rendered.check(turn.content)
    return tuple(turns)


def split_prompt(prompt: str) -> tuple[Conversation, str]:
    """Return the turns before the answer, and the start of the answer if the prompt has one (usually ``""``).

    Raises RecordError if a control token is left in a turn.
    """
    if family := rendered.family_of(prompt):
        turns, unfinished = rendered.parse(prompt, family)
    else:
        turns, unfinished = conversation_of(prompt), True
    if unfinished and turns and turns[-1].role == "assistant":
        return turns[:-1], turns[-1].content
    return turns, ""


def _with_answer(prompt: str, rest: str) -> Conversation:
    """Return the turns of a prompt, and the rest of its string as one answer."""
    family = rendered.family_of(prompt)
    turns, start = split_prompt(prompt)
    if family and (opening := family.opening.match(rest.lstrip())) and opening.lastgroup == "assistant":
        rest = rest.lstrip()[opening.end() :]  # the prompt did not open the answer
    elif (
        not family and as_turns(prompt)[-1].role != "assistant"
    ):  # as_turns makes a text without turns an assistant's
        rest = _after_human_turn(prompt, rest)
    answer = start + rendered.without_padding(rest)
    if family:
        answer = rendered.without_empty_thought(answer)
    return (*turns, Message("assistant", answer if family and not family.stripped else answer.strip()))


def _after_human_turn(prompt: str, rest: str) -> str:
    """Return what follows ``Assistant:`` after a dialogue that ends with its human turn."""
    after = prompt[len(prompt.rstrip()) :] + rest
    if opening := ANSWER.match(after):
        return after[opening.end() :]
    following = OPENING.search(rest)  # a turn that the policy forged begins with Human:
    if following and following[1] == "Assistant" and prompt[-1:].isalnum() and rest[:1].isalnum():
        raise RecordError("its prompt ends within a word of it. Send the whole prompt")
    return rest


def begins_dialogue(text: str) -> bool:
    """Return whether a text begins as a dialogue: with ``Human:``, or with ``System:`` before a human turn."""
    start = text.lstrip()
    return start.startswith("Human:") or (start.startswith("System:") and "\n\nHuman:" in start)


def as_turns(text: str | Conversation, role: Role = "assistant") -> Conversation:
    r"""Return the turns of a dialogue "\n\nHuman: …\n\nAssistant: …".

    It may have turns "System: …". A conversation is returned as it is; other text is one turn of ``role``, and so is
    one that begins "System:" and has no human turn.
    """
    if not isinstance(text, str):
        return text
    before, *parts = OPENING.split("\n\n" + text.lstrip())
    if before or not parts or (parts[0] == "System" and "Human" not in parts[::2]):
        return (Message(role, text),)
    return tuple(
        Message(SPEAKERS[speaker], turn.strip()) for speaker, turn in zip(parts[::2], parts[1::2], strict=True)
    )
