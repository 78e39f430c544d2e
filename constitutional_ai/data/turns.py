"""Read the turns of a conversation in the forms in which data sets write one.

A conversation is a text, or a list of messages with ``role`` and ``content`` (OpenAI, TRL), or with ``from`` and
``value`` (ShareGPT). A text is one turn, a dialogue of ``Human:`` and ``Assistant:`` (hh-rlhf), which may have
``System:``, or what a chat template rendered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from constitutional_ai.data.dialogues import as_turns, begins_dialogue, conversation_of
from constitutional_ai.data.rendered import is_rendered
from constitutional_ai.errors import RecordError
from constitutional_ai.records import Conversation, Message, Role

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
SPEAKERS: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}
"""The names that ShareGPT's form gives to roles."""
RUN_ON = re.compile(r"^Assistant:|\sAssistant:\s*$", re.MULTILINE)
"""The answer in a dialogue without blank lines, which would be read as part of what the human says."""
MESSAGES = re.compile(
    r"\s*\[\s*\{\s*['\"](?:role|content|from|value)['\"]\s*:"
    r"(?=.*['\"](?:system|user|assistant|human|gpt)['\"].*\]\s*\Z)",
    re.DOTALL,
)
"""Messages that were saved as one text, by pandas for example."""
TEXT_LIST = re.compile(r'\s*\[\s*".*"\s*\]\s*\Z', re.DOTALL)
"""A list of texts that was saved as one text. An answer may be such a list, a prompt that is nothing else is not."""
OTHER_SPEAKERS = re.compile(
    r"\s*(#{1,4} *human|#{0,4} *(?:user|prompter)) *:(?=.*\s(?:#{1,4} *)?(?:assistant|gpt|bot) *:)",
    re.DOTALL | re.IGNORECASE,
)
"""A dialogue with other names of its speakers than ours, which would be one human turn."""
TEXTS = {"text", "input_text", "output_text"}
"""The types of a part of a message that hold text."""


def turns_of(value: Any, place: str, role: Role) -> Conversation:
    """Return the turns of ``value``; a text that is no dialogue is one turn of ``role``.

    Raises ValueError that begins with the place of the wrong value, such as ``chosen.1.content``.
    """
    match value:
        case str() if is_rendered(value):
            try:
                return conversation_of(value)
            except RecordError as error:
                raise ValueError(f"{place}: {error}.") from error
        case str() if is_saved_list(value, role):
            raise ValueError(f"{place}: holds a list as a text. Save the table as Parquet or JSON lines.")
        case str() if role == "user" and (other := OTHER_SPEAKERS.match(value)):
            raise ValueError(f"{place}: is a dialogue with '{other[1]}:'. Write its turns as messages.")
        case str():
            turns = as_turns(value, role)
            if begins_dialogue(value) and RUN_ON.search(next(m.content for m in turns if m.role == "user")):
                raise ValueError(f"{place}: put a blank line before each 'Human:' and 'Assistant:'.")
            return turns
        case dict():
            return (_message(value, place),)
        case [_, *_]:
            messages = [_message(message, f"{place}.{n}") for n, message in enumerate(value)]
            if filled := [
                m for m in messages if m.role != "system" or m.content.strip()
            ]:  # H4 has empty system turns
                return tuple(filled)
    raise ValueError(f"{place}: must be a text or a list of messages, not {_short(value)}.")


def is_saved_list(text: str, role: Role) -> bool:
    """Return whether a text is a list, of messages or of texts, that a table saved as one text."""
    return bool(MESSAGES.match(text) or (role == "user" and TEXT_LIST.match(text)))


def joined(conversations: Sequence[Conversation]) -> Conversation | None:
    """Return the longest conversation if it holds all the others, each in one piece; None if they differ."""
    longest: Conversation = max(conversations, key=len, default=())
    return longest if all(_within(turns, longest) for turns in conversations) else None


def _within(part: Conversation, whole: Conversation) -> bool:
    wanted, turns = [[(m.role, m.content.strip()) for m in each] for each in (part, whole)]
    return any(turns[at : at + len(wanted)] == wanted for at in range(len(turns) - len(wanted) + 1))


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: must be a message, such as {{'role': 'user', 'content': '…'}}.")
    if "from" in value or "value" in value:
        speaker, text, roles = "from", "value", SPEAKERS
    else:
        speaker, text, roles = "role", "content", ROLES
    if value.get("tool_calls"):
        raise ValueError(f"{place}.tool_calls: calls of tools are not read. Leave this row out.")
    return Message(_role(value, f"{place}.{speaker}", speaker, roles), _content(value, place, text))


def _role(value: Mapping[str, Any], place: str, key: str, roles: Mapping[str, Role]) -> Role:
    if value.get(key) is None:
        raise ValueError(f"{place}: is missing.")
    role = roles.get(value[key]) if isinstance(value[key], str) else None
    if role is None:
        raise ValueError(f"{place}: must be one of {', '.join(roles)}, not {_short(value[key])}.")
    return role


def _content(value: Mapping[str, Any], place: str, key: str) -> str:
    """Return the text of a message: its content, or the parts of it, all of which must be text."""
    match value.get(key):
        case None:
            raise ValueError(f"{place}.{key}: is missing.")
        case str(text):
            return text
        case [_, *_] as parts:
            return "".join(_part(part, f"{place}.{key}.{n}") for n, part in enumerate(parts))
    raise ValueError(f"{place}.{key}: must be a text or a list of parts, not {_short(value[key])}.")


def _part(part: Any, place: str) -> str:
    match part:
        case {"type": str(kind), "text": str(text)} if kind in TEXTS:
            return text
        case {"type": str(kind)} if kind not in TEXTS:
            raise ValueError(f"{place}.type: only text is read, not {_short(kind)}.")
        case {"type": _}:
            raise ValueError(f"{place}.text: must be a text.")
    raise ValueError(f"{place}: must be a part, such as {{'type': 'text', 'text': '…'}}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:36]} …"
