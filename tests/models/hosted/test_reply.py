"""Test that a reply of any shape is an answer, or a fault that says what it is instead."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from constitutional_ai.errors import BrokenReply, OnlyThought, RecordError
from constitutional_ai.models.hosted.reply import read_reply
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Completion, uncounted

CALL = {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}


def completion(message: dict[str, Any], finish: str | None = "stop", tokens: int = 7) -> Completion:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
    reply = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }
    return read_reply(ChatCompletion.construct(**reply), "m", Sampling(max_tokens=8))


@pytest.mark.parametrize(
    ("message", "text", "thought"),
    [
        ({"content": " An apple. "}, "An apple.", None),
        ({"content": [{"type": "text", "text": "An "}, {"type": "text", "text": "apple."}]}, "An apple.", None),
        ({"content": ["An apple."]}, "An apple.", None),
        ({"content": [{"type": "output_text", "text": "An apple."}]}, "An apple.", None),
        (
            {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "An apple."}]},
            "An apple.",
            "Hm.",
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                    {"type": "text", "text": "An apple."},
                ]
            },
            "An apple.",
            "Hm.",
        ),
        (
            {
                "content": [
                    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
                    {"type": "text", "text": "An apple."},
                ]
            },
            "An apple.",
            "Hm.",
        ),
        ({"content": "An apple.", "reasoning_content": "Hm."}, "An apple.", "Hm."),
        ({"content": "An apple.", "reasoning": "Hm."}, "An apple.", "Hm."),
        ({"content": "An apple.", "reasoning": "Hm.", "reasoning_content": "Hm."}, "An apple.", "Hm."),
        ({"content": "An apple.", "reasoning_content": None, "reasoning": ""}, "An apple.", None),
        ({"content": "<think>Hm.</think>An apple."}, "An apple.", "Hm."),
        ({"content": "Hm.</think>An apple."}, "An apple.", "Hm."),
        ({"content": None, "refusal": "I would rather not."}, "I would rather not.", None),
        ({"content": [{"type": "refusal", "refusal": "I would rather not."}]}, "I would rather not.", None),
        ({"content": "Half an", "refusal": "I would rather not."}, "I would rather not.", None),
        ({"content": "An apple.", "tool_calls": []}, "An apple.", None),
        ({"content": None}, "", None),
    ],
)
def test_an_answer_is_read_from_every_shape(message: dict[str, Any], text: str, thought: str | None) -> None:
    read = completion(message)
    assert (read.text, read.thought, read.finish_reason) == (text, thought, "stop")


@pytest.mark.parametrize(
    ("message", "finish", "fault"),
    [
        ({"content": None, "tool_calls": [CALL]}, "tool_calls", "called a tool instead of answering"),
        ({"content": "Let me look.", "tool_calls": [CALL]}, "stop", "called a tool"),
        ({"content": "Half an"}, "content_filter", "with finish_reason 'content_filter'"),
        ({"content": "Half an"}, "error", "with finish_reason 'error'"),
        ({"content": "Half an"}, "abort", "with finish_reason 'abort'"),
        ({"content": [{"type": "image_url", "image_url": {}}]}, "stop", "a part that is no text: image_url"),
        ({"content": [{"type": []}]}, "stop", "a part that is no text"),
        ({"content": {"a": 1}}, "stop", "content is no text"),
        ({"content": 7}, "stop", "content is no text"),
    ],
)
def test_what_is_no_whole_answer_is_a_fault(message: dict[str, Any], finish: str, fault: str) -> None:
    with pytest.raises(RecordError, match=fault):
        completion(message, finish)


@pytest.mark.parametrize(
    ("finish", "tokens", "read"),
    [
        ("stop", 7, "stop"),
        ("STOP", 7, "stop"),
        ("eos_token", 7, "stop"),
        ("end_turn", 7, "stop"),
        ("length", 8, "length"),
        ("MAX_TOKENS", 8, "length"),
        (None, 8, "length"),
        (None, 7, "stop"),
        ("", 8, "length"),
        ("", 7, "stop"),
    ],
)
def test_every_name_of_an_end_is_known(finish: str | None, tokens: int, read: str) -> None:
    assert completion({"content": "An apple."}, finish, tokens).finish_reason == read


UNCOUNTED: list[dict[str, int] | None] = [None, {}, {"prompt_tokens": 9}, {"completion_tokens": 0}]


@pytest.mark.parametrize("usage", UNCOUNTED, ids=str)
@pytest.mark.parametrize("finish", [None, ""], ids=repr)
@pytest.mark.parametrize(
    ("message", "stop", "read"),
    [
        ({"content": "Apples."}, (), "stop"),  # 7 bytes are 7 tokens at most, of 8
        ({"content": "Apples.."}, (), "length"),
        ({"content": "\u82f9\u679c\u3002"}, (), "length"),  # 9 bytes, which may be 9 tokens
        ({"content": "Yes.", "reasoning": "Hm."}, (), "stop"),
        ({"content": "Yes.", "reasoning": "Hmmm."}, (), "length"),
        ({"content": "Apples and END pears"}, ("END",), "stop"),  # what ended it is known
        ({"content": ""}, (), "stop"),
    ],
)
def test_an_answer_without_reason_and_count_is_whole_only_if_it_is_surely_shorter_than_the_limit(
    usage: dict[str, int] | None, finish: str | None, message: dict[str, Any], stop: tuple[str, ...], read: str
) -> None:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    reply = ChatCompletion.construct(id="1", choices=[choice], usage=usage)
    assert read_reply(reply, "m", Sampling(max_tokens=8, stop=stop)).finish_reason == read


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_without_an_answer_is_a_fault_of_its_own(field: str) -> None:
    with pytest.raises(OnlyThought, match="spent its 8 tokens thinking"):
        completion({"content": None, field: "Hm, so"}, "length", 8)
    with pytest.raises(OnlyThought, match="gave no answer"):
        completion({"content": "", field: "Hm."})


@pytest.mark.parametrize("reply", [None, [], {}, "x", ChatCompletion.construct(choices=[None])])
def test_a_reply_without_an_answer_is_broken(reply: Any) -> None:
    with pytest.raises(BrokenReply, match="holds no answer"):
        read_reply(reply, "m", Sampling())


def test_an_error_with_status_200_is_told() -> None:
    with pytest.raises(BrokenReply, match="holds no answer: no room"):
        read_reply(ChatCompletion.construct(error={"message": "no room"}), "m", Sampling())


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}, (9, 7)),
        ({"input_tokens": 9, "output_tokens": 7}, (9, 7)),
        ({"prompt_tokens": 9, "total_tokens": 16}, (9, 7)),
        ({"completion_tokens": 7, "total_tokens": 16}, (9, 7)),
        ({"prompt_tokens": 9}, None),
        ({"completion_tokens": 7}, None),
        ({"total_tokens": 16}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({}, None),
        (None, None),
    ],
)
def test_tokens_are_counted_only_where_the_server_says_both_numbers(
    usage: dict[str, int] | None, counted: tuple[int, int] | None
) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "An apple."}}
    reply = ChatCompletion.construct(id="1", choices=[choice], usage=usage)
    made = read_reply(reply, "server:m@http://here", Sampling(max_tokens=8))
    if counted:
        assert ((made.prompt_tokens, made.completion_tokens), uncounted(made)) == (counted, None)
    else:
        assert uncounted(made) == "server:m@http://here"


def test_a_thought_alone_says_what_it_cost() -> None:
    with pytest.raises(OnlyThought) as caught:
        completion({"content": "", "reasoning_content": "Hm."})
    assert caught.value.tokens == (9, 7)


def test_an_error_beside_an_answer_breaks_it() -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Half an"}}
    with pytest.raises(BrokenReply, match="no room"):
        read_reply(ChatCompletion.construct(choices=[choice], error={"message": "no room"}), "m", Sampling())
