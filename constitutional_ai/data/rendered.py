"""Read a conversation that a chat template rendered as one string, turn by turn.

A family is a form that many templates share. A policy's control tokens are ordinary text to a preference model of
another family, so a string that is read wrongly would get a score like any other: what no family explains is refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from constitutional_ai.errors import RecordError
from constitutional_ai.records import Conversation, Message, Role

NAMES = r"(?:(?P<system>system|developer)|(?P<user>user)|(?P<assistant>assistant|model))"
DEEPSEEK_BOS = "<｜begin▁of▁sentence｜>"


class Family(NamedTuple):
    """A form of rendered conversations."""

    opening: re.Pattern[str]
    """What opens a turn, with a group for each role."""
    end: str
    """What ends a turn."""
    unended: frozenset[Role] = frozenset()
    """Roles whose turns have no end of their own: the next turn, which is of another role, ends them."""
    preamble: str | None = None
    """What stands before a system turn that has no opening."""
    stripped: bool = True
    """Whether white space around a turn is removed."""


FAMILIES = {
    "ChatML": Family(re.compile(rf"<\|im_start\|>{NAMES}\n"), "<|im_end|>", stripped=False),
    "Llama 3": Family(re.compile(rf"<\|start_header_id\|>\s*{NAMES}\s*<\|end_header_id\|>"), "<|eot_id|>"),
    "Gemma": Family(re.compile(rf"<start_of_turn>{NAMES}\n"), "<end_of_turn>"),
    "Gemma 4": Family(re.compile(rf"<\|turn>{NAMES}\n"), "<turn|>"),
    "Mistral": Family(
        re.compile(  # the second form of each is Llama 2's
            r"(?P<system>\[SYSTEM_PROMPT\]|(?:\[INST\]\s*)?<<SYS>>)"
            r"|(?P<user>\[/SYSTEM_PROMPT\]\s*\[INST\]|<</SYS>>\s*(?:\[INST\])?|\[INST\])"
            r"|(?P<assistant>\[/INST\])"
        ),
        "</s>",
        frozenset({"system", "user"}),
    ),
    "DeepSeek": Family(
        re.compile(r"(?P<user><｜User｜>)|(?P<assistant><｜Assistant｜>)"),
        "<｜end▁of▁sentence｜>",
        frozenset({"system", "user"}),
        DEEPSEEK_BOS,
    ),
}
PAD = (
    r"</?s>|<(?i:(?:bos|eos|pad|unk)(?:_token)?)>|\[(?:BOS|EOS|PAD|UNK)\]|<end_of_turn>|<turn\|>"
    r"|<\|(?:im_end|eot_id|endoftext|end_of_text|begin_of_text|startoftext|bos|eos|[\w▁]{0,30}(?i:pad)[\w▁]{0,30}"
    r"|reserved_special_token_\d+)\|>"
    r"|<｜(?:begin▁of▁sentence|end▁of▁sentence|▁pad▁)｜>"
)
"""Tokens that mean nothing at the edge of a text or a turn: padding, and its beginning and end. They may repeat."""
RUN = re.compile(rf"(?:(?:{PAD})\s*)+")
CONTROL = re.compile(
    r"(?!<\|channel>\s*thought)(?!<channel\|>)"  # Gemma's thoughts, which are no part of the turns' form
    rf"(?:{PAD}|<\|[^\s<>|]{{1,40}}\|?>|<[^\s<>|]{{1,40}}\|>|<｜[^<>｜]{{1,40}}｜>"
    r"|<(?:start_of_turn|end_of_utterance|sop|eop|mask|sep|cls)>|<(?:unused|reserved_|extra_id_|SPECIAL_)\d+>|<seed:\w+>"
    r"|\[(?:gMASK|MASK|CLS|SEP|/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS)|TOOL_CALLS|TOOL_CONTENT)\]"
    r"|<</?SYS>>|\[\|\w{1,40}\|\]|\]~!?b\]|\[e~\[)"
)
"""What the control tokens of chat templates look like, of known families and others."""
UNKNOWN = re.compile(
    r"(?:<\|[^\s<>|]{1,40}\|>|\[\|\w{1,40}\|\]).*?"
    r"(?:<\|[^\s<>|]{0,20}(?:assistant|bot|model)[^\s<>|]{0,20}\|>|\[\|assistant\|\]|<\|\w{1,20}\|>assistant)",
    re.DOTALL | re.IGNORECASE,
)
"""A turn of a family that is not in the table, and an answer or the start of one."""
EMPTY_THOUGHT = re.compile(
    r"\s*(?:<((?:[a-z]+[:_])?(?:think|thinking|thoughts?|reasoning))>\s*</\1>|\[THINK\]\s*\[/THINK\]"
    r"|◁think▷\s*◁/think▷|<\|channel>\s*thought\s*<channel\|>)\s*"
)
"""What templates write before an answer where thinking is off. It is no part of the answer."""


def family_of(text: str) -> Family | None:
    """Return the family of a text that begins with a turn of it, after padding; None if there is none."""
    head, rest = _without_head(text)
    for family in FAMILIES.values():
        if family.opening.match(rest.lstrip()):
            return family
        if family.preamble and family.preamble in head and family.opening.search(rest):
            return family
    return None


def is_rendered(text: str) -> bool:
    """Return whether a chat template rendered a text, of a family in the table or another, which cannot be parsed."""
    return family_of(text) is not None or UNKNOWN.match(_without_head(text)[1].lstrip()) is not None


def parse(text: str, family: Family) -> tuple[Conversation, bool]:
    """Return the turns, and whether the last one has no end, as an answer that is yet to come.

    Raises RecordError if a turn has no end, or a control token is left in one.
    """
    _, text = _without_head(text)
    openings = list(family.opening.finditer(text))
    preamble = text[: openings[0].start()].strip()  # empty unless the family has one
    check(preamble)
    turns = [Message("system", preamble)] if preamble else []
    ended = True
    for opening, after in zip(openings, [*openings[1:], None], strict=True):
        content, tail = _without_tail(text[opening.end() : after.start() if after else None])
        _, content = _without_head(content)
        check(content)
        role: Role = opening.lastgroup  # type: ignore[assignment]  # the groups have the names of roles
        ended = family.end in tail
        if after and not ended and (role not in family.unended or after.lastgroup == role):
            check(after[0])
        if role == "assistant":
            content = without_empty_thought(content)
        turns.append(Message(role, content.strip() if family.stripped else content))
    return tuple(turns), not ended


def check(text: str) -> None:
    """Raise RecordError, which names it, if a text holds a control token."""
    if token := CONTROL.search(text):
        *known, last = FAMILIES
        raise RecordError(
            f"it holds the control token {token[0]}, and cannot be read as {', '.join(known)} or {last}. Send messages "
            "instead"
        )


def without_empty_thought(answer: str) -> str:
    r"""Return a rendered answer without the empty thought before it.

    >>> without_empty_thought("<think>\n\n</think>\n\nAn oak."), without_empty_thought("<think>Hm</think>An oak.")
    ('An oak.', '<think>Hm</think>An oak.')
    """
    empty = EMPTY_THOUGHT.match(answer)
    return answer[empty.end() :] if empty else answer


def without_padding(text: str) -> str:
    """Return a text without the padding at its edges.

    >>> without_padding("<pad><pad><s>Hi </s><pad>")
    'Hi '
    """
    text, _ = _without_tail(text)
    return _without_head(text)[1]


def without_padding_before(text: str) -> str:
    """Return a text without the padding and the white space before it."""
    return _without_head(text)[1].lstrip()


def _without_head(text: str) -> tuple[str, str]:
    """Split the padding before a text, and the white space around it, from the text."""
    run = RUN.search(text)
    at = run.end() if run and not text[: run.start()].strip() else 0
    return text[:at], text[at:]


def _without_tail(text: str) -> tuple[str, str]:
    """Split a text from the padding after it."""
    runs = list(RUN.finditer(text))  # no pattern with an end: it would be slow where padding fills a text
    at = runs[-1].start() if runs and runs[-1].end() == len(text) else len(text)
    return text[:at], text[at:]
