"""Read the reply of an OpenAI-compatible chat server, whatever its shape.

A reply is an answer, or a RecordError that says what it is instead. Half an answer is never taken for a whole one.
"""

from __future__ import annotations

from typing import Any

from constitutional_ai.errors import BrokenReply, RecordError
from constitutional_ai.models.model import Sampling, cut_at_stop
from constitutional_ai.models.thinking import Reply, completion_of, split_thought
from constitutional_ai.records import Completion, FinishReason
from constitutional_ai.safe_text import whole_characters

WHOLE = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "completed", "complete"}
CUT = {"length", "max_tokens", "max_length", "max_output_tokens", "model_length"}
"""Names of the reasons for which servers end an answer, in lower case."""
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message in which servers put a thought: vLLM and SGLang, newer vLLM and OpenRouter, Ollama."""
LONGEST_TOKEN = 512
"""Bytes that no token exceeds; the longest that people use are 128 blanks or dashes."""
MOST_TOKENS = 2**40
"""A count of tokens that is as large is none."""
TEXT_PARTS = {"text", "output_text"}
THOUGHT_PARTS = {"thinking", "reasoning", "reasoning_text", "summary_text"}


def first_choice(reply: Any) -> Any:
    """Return the first choice of a reply. Raises BrokenReply: the server may send anything."""
    choices = getattr(reply, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    error = _error_inside(reply) or _error_inside(choice)
    if (
        error
        or choice is None
        or (getattr(choice, "message", None) is None and not isinstance(getattr(choice, "text", None), str))
    ):
        raise BrokenReply(f"the server's reply holds no answer{error}")
    return choice


def read_reply(reply: Any, name: str, sampling: Sampling) -> Completion:
    """Return the completion in a reply of ``chat/completions`` or ``completions``.

    Raises RecordError when it is no whole answer, and OnlyThought when it is a thought alone.
    """
    choice = first_choice(reply)
    message = getattr(choice, "message", None)
    parts = Reply(None, choice.text) if message is None else _message(message)
    answer, stopped = cut_at_stop(whole_characters(parts.answer), sampling.stop)
    read, written = tokens_of(getattr(reply, "usage", None))
    thought = None if parts.thought is None else whole_characters(parts.thought)
    size = len(f"{thought or ''}{answer}".encode())
    if size > LONGEST_TOKEN * (sampling.max_tokens + sampling.thinking):
        raise BrokenReply(f"the server does not keep max_tokens: its answer has {size} bytes")
    most_written = written or size  # a token is a byte or more
    may_be_full = most_written >= sampling.max_tokens + sampling.thinking
    finish = "stop" if stopped else _finish(getattr(choice, "finish_reason", None), may_be_full)
    if (answer.strip() or thought) and not written:
        read = 0  # half a count is none (``records.uncounted``)
    return completion_of(Reply(thought, answer.strip()), name, finish, read, written, sampling)


def _message(message: Any) -> Reply:
    """Return the thought and the answer of a message. A refusal beside the content is what the model answered."""
    thoughts, content = _content(getattr(message, "content", None))
    if refusal := getattr(message, "refusal", None):
        content = str(refusal)
    if getattr(message, "tool_calls", None) or getattr(message, "function_call", None):
        raise RecordError("the model called a tool instead of answering")
    fields = [getattr(message, field, None) for field in THOUGHT_FIELDS]
    beside = next((field for field in fields if isinstance(field, str) and field.strip()), None)
    inside = split_thought(content)
    # Some servers repeat a thought in two fields, so that only the first one counts.
    all_thoughts = [beside] if beside else thoughts
    all_thoughts += [inside.thought] if inside.thought is not None else []
    return Reply("\n\n".join(all_thoughts) if all_thoughts else None, inside.answer)


def _content(content: Any) -> tuple[list[str], str]:
    """Return the thoughts and the text of a message's content, which is a text or a list of parts."""
    if content is None or isinstance(content, str):
        return [], content or ""
    if not isinstance(content, list):
        raise BrokenReply(f"the server's content is no text: {str(content)[:80]}")
    thoughts: list[str] = []
    texts: list[str] = []
    for part in content:
        kind = "text" if isinstance(part, str) else str(_field(part, "type"))
        if kind in TEXT_PARTS:
            texts.append(_text(part))
        elif kind in THOUGHT_PARTS:
            thoughts.append(_text(part))
        elif kind == "refusal":
            return thoughts, str(_field(part, "refusal") or "")
        else:
            raise BrokenReply(f"the server's content holds a part that is no text: {kind[:80]}")
    return thoughts, "".join(texts)


def _text(part: Any) -> str:
    """Return all text of a part: thoughts are texts, or lists of parts again."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "".join(map(_text, part))
    fields = (_field(part, name) for name in ("text", "thinking", "reasoning", "content", "summary"))
    return _text(next((field for field in fields if isinstance(field, str | list)), ""))


def _field(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)


def _finish(reason: Any, may_be_full: bool) -> FinishReason:
    """Return why an answer ended. Raises RecordError when it was broken off for another reason than its length.

    Some servers and proxies never give a reason, or an empty one. Then an answer that may have as many tokens as the
    limit counts as cut, because half of one must not count as whole.
    """
    if reason in (None, ""):
        return "length" if may_be_full else "stop"
    known = str(reason).lower()
    if known in WHOLE or known in CUT:
        return "length" if known in CUT else "stop"
    raise RecordError(f"the server broke the answer off, with finish_reason '{str(reason)[:40]}'")


def tokens_of(usage: Any) -> tuple[int, int]:
    """Return the tokens that a server says it read and wrote; 0 for what it does not say.

    Some servers name them as the newer API of OpenAI does, and some give one of the two and the sum.
    """
    read = _count(usage, "prompt_tokens") or _count(usage, "input_tokens")
    written = _count(usage, "completion_tokens") or _count(usage, "output_tokens")
    both = _count(usage, "total_tokens")
    if both and bool(read) != bool(written):
        read, written = read or max(0, both - written), written or max(0, both - read)
    return read, written


def _count(usage: Any, field: str) -> int:
    count = _field(usage, field)
    return count if type(count) is int and 0 < count < MOST_TOKENS else 0


def _error_inside(reply: Any) -> str:
    """Return the error that a server sends with status 200; ``""`` if there is none."""
    error = getattr(reply, "error", None)
    message = error.get("message") if isinstance(error, dict) else error
    return f": {str(message)[:200]}" if message else ""
