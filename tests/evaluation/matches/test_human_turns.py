from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from constitutional_ai.evaluation.matches.human_turns import (
    NEXT_TURN,
    WRITE,
    human_turns,
    parse_human_turn,
    write_human_turn,
)
from constitutional_ai.models.model import Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import (
    Completion,
    Conversation,
    Kind,
    Message,
    Prompt,
    Response,
    conversation_id,
)


def talk(*turns: str) -> Conversation:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return tuple(Message(roles[turn[0]], turn[2:]) for turn in turns)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "turns"),
    [
        (("u Hi.",), [("u Hi.",)]),
        (("u Hi.", "a Hello!", "u Bye."), [("u Hi.",), ("u Bye.",)]),
        (
            ("s Be kind.", "u Hi.", "u You?", "a Yes?", "u Bye."),
            [("s Be kind.", "u Hi.", "u You?"), ("u Bye.",)],
        ),
        (("a Welcome!", "u Hi."), [("u Hi.",)]),
        (("s Be kind.", "a Welcome!", "u Hi."), [("s Be kind.", "u Hi.")]),
    ],
)
def test_the_human_turns_of_a_prompt(prompt: tuple[str, ...], turns: list[tuple[str, ...]]) -> None:
    assert human_turns(Prompt.of(talk(*prompt), "helpful", "test")) == [talk(*turn) for turn in turns]


def said(text: str) -> Response:
    return Response(
        "x.human", Prompt.of(talk("u asked"), "helpful", "test"), Completion(text, "m", "stop", 1, 1)
    )


@pytest.mark.parametrize(
    ("wrote", "turn"),
    [
        ("And with eggs?", "And with eggs?"),
        ("Human: And with eggs?\n\nAssistant: Yes.\n\nHuman: Thanks!", "And with eggs?"),
        ("  And with eggs?\nIn a hurry.\nAssistant: Fry them.", "And with eggs?\nIn a hurry."),
        ("\nAssistant: Fry them.", ""),
        ("Human:", ""),
        (" ", ""),
    ],
)
def test_only_one_human_turn_is_read(wrote: str, turn: str) -> None:
    assert parse_human_turn(said(wrote)) == turn


@pytest.mark.parametrize("kind", ["red_team", "helpful"])
@pytest.mark.parametrize("fmt", ["chat", "plain"])
def test_a_model_is_asked_for_the_humans_next_turn(fmt: str, kind: Kind) -> None:
    asked: list[str] = []

    def say(context: str) -> str:
        asked.append(context)
        return "Why not?"

    model = replace(ScriptedModel(say=say), format=fmt)  # type: ignore[arg-type]
    so_far = talk("u Rob him!", "a I will not.")
    made = asyncio.run(write_human_turn(so_far, kind, model=model, sampling=Sampling(), seed=0))
    assert (made.id, parse_human_turn(made)) == (f"{conversation_id(so_far)}.human", "Why not?")
    assert "\n\nHuman: Rob him!\n\nAssistant: I will not.\n\n" in asked[0]
    assert asked[0].endswith("\n\nHuman:" if fmt == "plain" else f"{WRITE}\n\nAssistant:")
    assert made.prompt.conversation[0].content in asked[0]
    assert ("harm" in asked[0].partition("Rob")[0]) == (kind == "red_team")


def test_servers_take_no_more_than_four_stop_strings() -> None:
    assert len(NEXT_TURN) <= 4
