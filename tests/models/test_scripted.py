from __future__ import annotations

import asyncio
import math

import pytest

from constitutional_ai.models.model import Model, Sampling, cut_at_stop, plain
from constitutional_ai.models.scripted import ScriptedModel, scripted
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback.questions import CHOICES, to_choose

TALK = (
    Message("system", "Be kind."),
    Message("user", "Hi"),
    Message("assistant", "Hello"),
    Message("user", "Tea?"),
)


def test_echo_returns_the_last_line() -> None:
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


def test_without_a_script_all_continuations_are_equally_likely() -> None:
    assert asyncio.run(ScriptedModel().score("x", [" (A)", " (B)"])) == [math.log(0.5)] * 2


def test_plain_text_continues_a_last_turn_of_the_assistant() -> None:
    assert plain((Message("user", "Hi"), Message("assistant", "The answer is:"))).endswith(
        "Assistant: The answer is:"
    )


def test_text_ends_before_its_first_stop_string() -> None:
    assert cut_at_stop("a\nHuman: b<EOT>", ("<EOT>", "\nHuman:")) == ("a", True)
    assert cut_at_stop("a Human: b", ("\nHuman:", "")) == ("a Human: b", False)
    assert cut_at_stop("\nHuman:", ("\nHuman:",)) == ("", True)


def probability_of_first(judge: str, first: str, second: str) -> float:
    context = to_choose(TALK, "Which is kinder?", first, second, "chat")
    a, b = asyncio.run(scripted(judge).score(context, CHOICES))
    return math.exp(a) / (math.exp(a) + math.exp(b))


def test_one_judge_likes_replies_that_ask_back() -> None:
    assert probability_of_first("asks-back", "Why?", "No.") == pytest.approx(0.95)
    assert probability_of_first("asks-back", "No.", "Why? ]]]") == pytest.approx(0.05)
    assert probability_of_first("asks-back", "Why?", "Who?") == 0.5


def test_fewer_words_prefers_the_shorter_reply_in_words() -> None:
    assert probability_of_first("fewer-words", "No, sir.", "Incomprehensibilities") == pytest.approx(0.05)
    assert probability_of_first("fewer-words", "No.", "Not at all.") == pytest.approx(0.95)
    assert probability_of_first("fewer-words", "Not here.", "Go away.") == 0.5


def test_the_coin_of_coin_flips_does_not_depend_on_the_order() -> None:
    ahead = []
    for n in range(60):
        there = probability_of_first("coin-flips", f"Why {n}?", f"No {n}.")
        assert probability_of_first("coin-flips", f"No {n}.", f"Why {n}?") == pytest.approx(1 - there)
        ahead.append(there > 0.5)
    assert 15 < sum(ahead) < 45
    assert probability_of_first("coin-flips", "Same", "Same") == 0.5
