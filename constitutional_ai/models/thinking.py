"""Tell a model's thought from its answer.

Most chat models of today think before they answer. A thought says "(A) tells how" and quotes what a refusal would say,
so a thought that is taken for an answer gives wrong votes, wrong verdicts and wrong training data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from constitutional_ai.errors import OnlyThought
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Completion, Conversation, FinishReason

WORD = r"(?:[a-z]+[:_])?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)"
TAGS = (
    (rf"<{WORD}>", rf"</{WORD}>"),  # Qwen, DeepSeek, GLM, SmolLM, OLMo, Phi, EXAONE, Seed, ...
    (r"\[THINK\]", r"\[/THINK\]"),  # Mistral
    (r"\u25c1think\u25b7", r"\u25c1/think\u25b7"),  # Kimi
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command A
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    (r"<\|channel>\s*thought\b", r"<channel\|>"),  # Gemma
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # OpenThinker
)
OPENS, CLOSES = ("|".join(tags) for tags in zip(*TAGS, strict=True))
OPENING = re.compile(rf"^[^\S\n]*(?:{OPENS})", re.IGNORECASE | re.MULTILINE)
"""An opening at the start of a line. In the middle of one it is spoken of, not used."""
CLOSING = re.compile(CLOSES, re.IGNORECASE)
TAG = re.compile(f"{OPENS}|{CLOSES}", re.IGNORECASE)
OPEN_END = re.compile(rf"({OPENS})\s*\Z", re.IGNORECASE)
MENTION = (
    r"(?=\s+(?:tags?|tokens?|markers?|elements?|and|or|to|is|are|before|after|around|means?|ends?|closes?)\b)"
)
SHOWN = re.compile(
    rf"```.*?```|`[^`\n]{{0,80}}`|[\"'“‘][^\"'“”‘’\w<]*(?:{OPENS}|{CLOSES})[^\"'“”‘’\w<]*(?:(?:{OPENS}|{CLOSES})[^\"'“”‘’\w<]*)?[\"'”’]"
    rf"|(?:{OPENS}|{CLOSES}){MENTION}",
    re.DOTALL | re.IGNORECASE,
)
"""Code, a tag in quotation marks, or one that a sentence speaks of: an answer may name a tag."""
NEXT_OPENING = re.compile(rf"\s*(?:{OPENS})", re.IGNORECASE)
"""An opening right behind the end of a thought."""
CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
"""A message of gpt-oss, whose channel is ``analysis``, ``commentary`` or ``final``."""
CHANNELS = re.compile(r"\s*(?:<\|start\|>\s*assistant\s*)?<\|channel\|>")
HEADLESS = re.compile(r"\s*(?:analysis|commentary|final)<\|message\|>")
"""A reply in channels, with its first token and without it."""
BARE_CHANNELS = re.compile(r"\s*analysis(?=[A-Z]|.*assistantfinal)(.*?)(?:assistantfinal(.*)|\Z)", re.DOTALL)
"""The same from a server that drops the control tokens and keeps the words between them."""
SENTENCES = re.compile(r"\s*Here is my thought process:(.*?)(?:Here is my response:(.*)|\Z)", re.DOTALL)
"""The form of Granite, which has no tags."""
WRAPPED = re.compile(
    r"(?:<(?:answer|response)>|<\|START_RESPONSE\|>)(.*?)(?:</(?:answer|response)>|<\|END_RESPONSE\|>)?\s*",
    re.DOTALL | re.IGNORECASE,
)
"""An answer between tags, as some models write it after a thought."""


class Reply(NamedTuple):
    """What a model wrote, in two parts."""

    thought: str | None
    """None if the model did not think."""
    answer: str
    """Empty if the thought was cut off."""


def opens_thought(prompt: str) -> bool:
    r"""Return whether a rendered prompt ends inside a thought, as those of some chat templates do.

    >>> opens_thought("<|assistant|><think>\n"), opens_thought("<|assistant|><think>\n\n</think>\n\n")
    (True, False)
    """
    return OPEN_END.search(prompt) is not None


def closing_of(prompt: str) -> str | None:
    r"""Return the tag that closes the thought in which a rendered prompt ends; None if it ends in none.

    >>> closing_of("<|assistant|><think>\n"), closing_of("[THINK]"), closing_of("<|assistant|>")
    ('</think>', '[/THINK]', None)
    """
    opened = OPEN_END.search(prompt)
    if opened is None:
        return None
    tag = opened[1]
    if tag.startswith("<|channel>"):
        return "<channel|>"
    for start, end in (("START_THINKING", "END_THINKING"), ("prefix", "suffix")):
        if start in tag:
            return tag.replace(start, end)
    return f"{tag[0]}/{tag[1:]}"


def split_thought(text: str, *, opened: bool = False) -> Reply:
    """Return the thought and the answer in what a model wrote, each without white space around it.

    ``opened`` says that the prompt itself opened a thought. Without it a thought opens where a line begins; its end may
    also come without an opening, because some servers drop what the prompt opened. Tags in code or in quotation marks
    belong to the answer.

    >>> split_thought("<think>A tree, perhaps.</think>An oak.")
    Reply(thought='A tree, perhaps.', answer='An oak.')
    """
    if HEADLESS.match(text):
        text = "<|channel|>" + text.lstrip()
    if CHANNELS.match(text):
        channels = CHANNEL.findall(text)
        thoughts = [text for channel, text in channels if channel != "final"]
        return _reply(thoughts, "".join(text for channel, text in channels if channel == "final"))
    if form := BARE_CHANNELS.fullmatch(text) or SENTENCES.fullmatch(text):
        return _reply([form[1]], form[2] or "")
    return _reply(*_parts(text, opened))


def without_thoughts(conversation: Conversation) -> Conversation:
    """Return the conversation with what the assistant answered, and nothing of what it thought.

    >>> from constitutional_ai.records import Message
    >>> without_thoughts((Message("assistant", "<think>Hm</think> Yes"),))
    (Message(role='assistant', content='Yes'),)
    """
    return tuple(m if m.role != "assistant" else replace(m, content=_answer(m.content)) for m in conversation)


def _answer(text: str) -> str:
    answer = split_thought(text).answer
    return text if answer == text.strip() else answer  # a text without a thought keeps its white space


def _parts(text: str, opened: bool) -> tuple[list[str], str]:
    """Return the thoughts between tags, and all other text."""
    masked = SHOWN.sub(lambda shown: " " * len(shown[0]), text)  # positions stay the same
    thoughts, answer, at = [], "", 0
    opening, closing = OPENING.search(masked), CLOSING.search(masked)
    if opened and not NEXT_OPENING.match(text):
        end = closing or CLOSING.search(text)
        thoughts, at = [text[: end.start()] if end else text], end.end() if end else len(text)
    elif not opened and closing and not (opening and opening.start() < closing.start()):
        thoughts, at = [text[: closing.start()]], closing.end()  # its opening was dropped
    while opening := (NEXT_OPENING.match(masked, at) if thoughts else None) or OPENING.search(masked, at):
        end = CLOSING.search(masked, opening.end()) or CLOSING.search(text, opening.end())
        before = text[at : opening.start()]
        if end is None and not thoughts and before.strip():
            break  # an answer that shows a tag
        answer += before
        thoughts.append(text[opening.end() : end.start() if end else len(text)])
        at = end.end() if end else len(text)
    if thoughts and (closing := CLOSING.search(masked, at)):  # one thought was inside another
        thoughts.append(text[at : closing.start()])
        at = closing.end()
    return thoughts, answer + text[at:]


def _reply(thoughts: Iterable[str], answer: str) -> Reply:
    thoughts = list(thoughts)
    if thoughts and (wrapped := WRAPPED.fullmatch(answer.strip())):
        answer = wrapped[1]
    thought = "\n\n".join(filter(None, map(str.strip, thoughts)))
    # An empty thought is what a template writes for a model whose thinking is switched off.
    return Reply(thought if thought or (thoughts and not answer.strip()) else None, answer.strip())


def completion_of(
    reply: Reply, model: str, finish: FinishReason, prompt_tokens: int, tokens: int, sampling: Sampling
) -> Completion:
    """Return the completion of a model that may have thought. Raises OnlyThought if it gave no answer."""
    if reply.thought is not None and not reply.answer:
        limit = sampling.max_tokens + sampling.thinking
        outcome = f"spent its {limit} tokens thinking" if finish == "length" else "thought, and gave no answer"
        error = OnlyThought(
            f"the model {outcome}: raise thinking_tokens or max_tokens, or switch thinking off."
        )
        error.tokens = (prompt_tokens, tokens)
        raise error
    return Completion(reply.answer, model, finish, prompt_tokens, tokens, reply.thought)
