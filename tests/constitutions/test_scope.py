"""A principle's scope holds wherever principles are drawn: revisions, labels and ratings."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Comparison, Completion, Kind, Message, Prompt, Response
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.reinforcement.feedback_reward import FeedbackReward
from constitutional_ai.sl_cai.revise import revise
from constitutional_ai.sl_cai.settings import Revisions

SIDES = {"critique": "Is it rude?", "revision": "Make it kind.", "preference": "Which is kinder?"}
MINE = Constitution(
    name="mine",
    principles=(
        Principle(name="all", **SIDES),
        Principle(name="red", **SIDES, weight=1e6, applies_to=("red_team",)),
        Principle(name="tagged", **SIDES, weight=1e9, applies_to=("theft",)),
    ),
)
ANSWER = Completion("Well.", "m", "stop", 0, 1)


@pytest.mark.parametrize(
    ("kind", "tags", "drawn"),
    [
        ("helpful", (), "all"),
        ("red_team", (), "red"),
        ("red_team", ("theft",), "tagged"),
        ("borderline", (), "all"),
    ],
)
def test_revisions_and_labels_draw_what_applies(kind: Kind, tags: tuple[str, ...], drawn: str) -> None:
    prompt = Prompt.of((Message("user", "Hello?"),), kind, "test", tags)
    model = ScriptedModel()
    chain = asyncio.run(
        revise(
            Response("p.0", prompt, ANSWER),
            model=model,
            constitution=MINE,
            settings=Revisions(rounds=2),
            seed=0,
        )
    )
    assert {revision.principle for revision in chain.revisions} == {drawn}
    pair = Comparison("p.0", prompt, ANSWER, replace(ANSWER, text="No."))
    given = asyncio.run(label(pair, model=model, constitution=MINE, settings=Feedback(), seed=0))
    assert {judgement.principle for judgement in given.judgements} == {drawn}


def test_ratings_know_no_kind_and_draw_what_applies_to_all() -> None:
    shown: list[str] = []

    def weigh(context: str, continuation: str) -> float:
        shown.append(context)
        return -1.0

    mine = Constitution(
        name="mine",
        principles=(
            MINE.principles[0],
            Principle(name="red", preference="Safer?", weight=1e9, applies_to=("red_team",)),
        ),
    )
    reward = FeedbackReward(ScriptedModel(weigh=weigh), mine, Feedback(), 0)
    assert reward([(Message("user", "Hello?"), Message("assistant", "Hi."))]) == [0.0]
    assert all("Which is kinder?" in context for context in shown)
