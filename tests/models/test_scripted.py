from __future__ import annotations

import asyncio
import math

from cai.models.model import Model, Sampling, cut_at_stop, plain
from cai.models.scripted import ScriptedModel
from cai.records import Message

TALK = (
    Message("system", "Be kind."),
    Message("user", "Hi"),
    Message("assistant", "Hello"),
    Message("user", "Tea?"),
)


def test_it_says_the_last_line_it_was_given() -> None:
    model: Model = ScriptedModel()
    assert asyncio.run(model.generate(TALK, Sampling())).text == "Tea?"
    assert asyncio.run(model.generate("one\ntwo", Sampling())).text == "two"


def test_it_sees_the_plain_text_of_a_conversation() -> None:
    seen: list[str] = []
    model = ScriptedModel(say=lambda context: seen.append(context) or "x", weigh=lambda c, x: -float(len(x)))
    said = asyncio.run(model.generate(TALK, Sampling()))
    assert seen == ["\n\nSystem: Be kind.\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Tea?\n\nAssistant:"]
    assert (said.prompt_tokens, said.completion_tokens) == (10, 1)
    assert asyncio.run(model.score(TALK, ["a", "bcd"])) == [-1.0, -3.0]


def test_without_a_script_it_is_indifferent() -> None:
    assert asyncio.run(ScriptedModel().score("x", [" (A)", " (B)"])) == [math.log(0.5)] * 2


def test_plain_text_goes_on_where_the_assistant_was_cut() -> None:
    assert plain((Message("user", "Hi"), Message("assistant", "The answer is:"))).endswith(
        "Assistant: The answer is:"
    )


def test_text_ends_before_its_first_stop_string() -> None:
    assert cut_at_stop("a\nHuman: b<EOT>", ("<EOT>", "\nHuman:")) == ("a", True)
    assert cut_at_stop("a Human: b", ("\nHuman:", "")) == ("a Human: b", False)
    assert cut_at_stop("\nHuman:", ("\nHuman:",)) == ("", True)
