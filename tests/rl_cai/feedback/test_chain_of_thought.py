"""Chain-of-thought feedback (FB-10 to FB-13)."""

from __future__ import annotations

import asyncio
import math
import re

import pytest

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import Context, plain
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Comparison, Completion, Message, Prompt, Usage
from constitutional_ai.rl_cai.feedback.chain_of_thought import (
    HEAD,
    SO,
    THINK,
    question_for_reasoning,
    to_answer,
    to_think,
)
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from tests.paper_files import PAPER, paper

PROMPT = Prompt.of((Message("user", "Hi {you}?"),), "red_team", "test")
PAIR = Comparison("p.0", PROMPT, *[Completion(text, "m", "stop", 0, 1) for text in ("Go away.", "Hello!")])
MINE = Constitution(name="m", principles=(Principle(name="kind", preference="Which is kinder?"),))


def thinker(probability_of_hello: float) -> ScriptedModel:
    """Reasons in a few words, then gives the option that holds "Hello!" this probability."""

    def weigh(context: str, continuation: str) -> float:
        is_hello = "(A) [[[Hello!]]]" in context if "(A)" in continuation else "(B) [[[Hello!]]]" in context
        return math.log(probability_of_hello if is_hello else 1 - probability_of_hello)

    return ScriptedModel(say=lambda context: "Hello is kinder.", weigh=weigh)


@pytest.mark.parametrize(("sure", "label_a"), [(0.99, 0.40), (0.52, 0.48), (0.01, 0.60)])
def test_labels_are_clamped_and_not_rescaled(sure: float, label_a: float) -> None:
    settings = Feedback(method="chain_of_thought")
    soft = asyncio.run(label(PAIR, model=thinker(sure), constitution=MINE, settings=settings, seed=0))
    assert soft.probability_a == pytest.approx(label_a)
    assert {j.reasoning for j in soft.judgements} == {"Hello is kinder."}
    assert soft.flipped is False


def test_a_judgement_holds_the_token_counts_of_its_reasoning() -> None:
    settings = Feedback(method="chain_of_thought", chains=2)
    soft = asyncio.run(label(PAIR, model=thinker(0.6), constitution=MINE, settings=settings, seed=0))
    question = question_for_reasoning(PROMPT.conversation, "Which is kinder?", "Go away.", "Hello!")
    words = len(plain(to_think(question, "chat")).split())
    assert [j.usage for j in soft.judgements] == 4 * [Usage(words, 3)]


def test_only_chain_of_thought_is_clamped() -> None:
    soft = asyncio.run(label(PAIR, model=thinker(0.99), constitution=MINE, settings=Feedback(), seed=0))
    assert soft.probability_a == pytest.approx(0.01)


def test_the_letter_is_scored_in_a_turn_of_its_own() -> None:
    seen: list[Context] = []

    class Listening(ScriptedModel):
        async def score(self, context: Context, continuations: object) -> list[float]:
            seen.append(context)
            return [-1.0, -1.0]

    model = Listening(say=lambda context: "Because.")
    settings = Feedback(method="chain_of_thought", format="plain")
    asyncio.run(label(PAIR, model=model, constitution=MINE, settings=settings, seed=0, as_given=True))
    assert seen == [
        "\n\nHuman: Consider the following conversation between a human (H) and an assistant (A):"
        "\n\nH: Hi {you}?\n\n\nWhich is kinder? Options:\n (A) [[[Go away.]]]\n (B) [[[Hello!]]]"
        "\n\nAssistant: Let's think step by step: Because.\n\nHuman:\nSo the answer is:"
    ]


def test_in_a_chat_the_reasoning_continues_the_assistants_turn() -> None:
    question = question_for_reasoning(PROMPT.conversation, "Which?", "x", "y")
    assert to_think(question, "chat") == (Message("user", question), Message("assistant", THINK))
    assert to_answer(question, "So.", "chat")[-1] == Message("assistant", f"{THINK} So.\n\n{SO}")


def test_empty_reasoning_gives_no_label() -> None:
    with pytest.raises(EmptyAnswer):
        silent, settings = ScriptedModel(say=lambda context: ""), Feedback(method="chain_of_thought")
        asyncio.run(label(PAIR, model=silent, constitution=MINE, settings=settings, seed=0))


@paper
def test_the_papers_worked_examples_are_rebuilt_byte_for_byte() -> None:
    """Four of six: the first goes on in a new line after its colon, the header of the fifth lacks its (H) and (A)."""
    import json

    texts = [
        x["prompt"] for x in json.loads((PAPER / "prompts/RLMadisonPrecogFewShotPrompts.json").read_text())
    ]
    whole = [text.strip() for text in texts if HEAD in text and f"{THINK} " in text]
    assert len(whole) == 4
    for text in whole:
        filled = text.replace("{}", "\nWhich? Options:")
        parts = re.fullmatch(
            r"Human: (?P<question>.*?)\n\nAssistant: Let's think step by step: (?P<thought>.*)\n\nHuman:\nSo the "
            r"answer is: \([AB]\)",
            filled,
            re.DOTALL,
        )
        assert parts is not None
        talk, options = parts["question"].removeprefix(HEAD).split("\n\n\nWhich? Options:")
        first, second = re.fullmatch(
            r"\n \(A\) \[\[\[(.*)\]\]\]\n \(B\) \[\[\[(.*)\]\]\]", options, re.DOTALL
        ).groups()
        turns = re.findall(r"\n\n([HA]): (.*?)(?=\n\n[HA]: |\Z)", talk, re.DOTALL)
        conversation = tuple(Message("user" if who == "H" else "assistant", text) for who, text in turns)
        rebuilt = to_answer(
            question_for_reasoning(conversation, "Which?", first, second), parts["thought"], "plain"
        )
        assert rebuilt == "\n\n" + filled[: -len(" (A)")]
