"""Feedback by decisions, and by letters of a chat server: both orders, low mass, refusals, records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pydantic import TypeAdapter

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import LowLabelMass, ModelError, RefusedAnswer
from constitutional_ai.evaluation.judge.judge import judge
from constitutional_ai.evaluation.judge.judge_report import JudgeReport, judge_report
from constitutional_ai.models.hosted.letters import PROBE
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Comparison, Completion, Judgement, Message, PreferenceLabel, Prompt
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.reinforcement.feedback_reward import FeedbackReward
from tests.models.hosted.scripted_server import (
    Answer,
    Places,
    Request,
    ScriptedServer,
    chat,
    decisions,
    refusing,
    systemone,
)

PAIR = Comparison(
    "p.0",
    Prompt.of((Message("user", "Hi?"),), "red_team", "test"),
    *[Completion(text, "m", "stop", 0, 1) for text in ("KIND", "RUDE")],
)
MINE = Constitution(name="m", principles=(Principle(name="kind", preference="Which is kinder?"),))
Weigh = Callable[[str, list[str]], list[float]]


def first(state: str, options: list[str]) -> list[float]:
    """Always prefer the option that is shown first."""
    return [0.9, 0.1]


def kind(state: str, options: list[str]) -> list[float]:
    """Prefer KIND wherever it is shown. The probe has two fruits."""
    return [0.8 if option == "KIND" else 0.2 for option in options] if "KIND" in options else [0.5, 0.5]


def by_letter(weigh: Weigh) -> Answer:
    """Say the letter of the likelier option, in a chat."""

    def say(request: Request) -> Places:
        text = request["messages"][-1]["content"]
        if text == PROBE[0].content:
            return [("Once", {"Once": 0.6, "The": 0.4})]
        a, b = weigh(text, ["KIND", "RUDE"] if "(A) [[[KIND]]]" in text else ["RUDE", "KIND"])
        return [("A" if a > b else "B", {"A": a * 0.9, "B": b * 0.9})]

    return chat(say)


def labelled(answers: dict[str, Answer], **settings: Any) -> PreferenceLabel:
    with ScriptedServer(answers) as server:
        model = ServerModel("m", server.url)
        return asyncio.run(label(PAIR, model=model, constitution=MINE, settings=Feedback(**settings), seed=0))


@pytest.mark.parametrize(
    ("method", "server"),
    [
        ("decision", lambda weigh: {"systemone": systemone(weigh)}),
        ("decision", lambda weigh: {"decisions": decisions(weigh)}),
        ("multiple_choice", lambda weigh: {"chat/completions": by_letter(weigh)}),
    ],
)
def test_both_orders_are_asked_and_averaged(method: str, server: Callable[[Weigh], dict[str, Answer]]) -> None:
    fair = labelled(server(kind), method=method)
    assert [j.probability_first for j in fair.judgements] == pytest.approx([0.8, 0.2])
    assert fair.probability_a == pytest.approx(0.8)
    unfair = labelled(server(first), method=method)
    assert [j.probability_first for j in unfair.judgements] == pytest.approx([0.9, 0.9])
    assert unfair.probability_a == pytest.approx(0.5)
    assert unfair.flipped


def test_the_question_holds_the_conversation_the_principle_and_both_answers() -> None:
    with ScriptedServer({"systemone": systemone(kind)}) as server:
        model = ServerModel("m", server.url)
        asyncio.run(label(PAIR, model=model, constitution=MINE, settings=Feedback(method="decision"), seed=0))
    asked = [request["questions"]["answer"] for request in server.requests[1:]]
    assert sorted(str(question["criteria"]) for question in asked) == [
        str({"A": "KIND", "B": "RUDE"}),
        str({"A": "RUDE", "B": "KIND"}),
    ]
    assert {question["instructions"] for question in asked} == {"Which is kinder?"}
    assert server.requests[1]["state"].endswith("\n\nHuman: Hi?")


def test_the_record_holds_what_the_server_answered() -> None:
    soft = labelled({"systemone": systemone(kind)}, method="decision")
    assert [j.label_mass for j in soft.judgements] == [0.9, 0.9]
    assert all('"A": 0.' in (j.raw or "") for j in soft.judgements)
    assert soft.judgements[0].usage == (7, 1)
    rows = TypeAdapter(PreferenceLabel)
    assert rows.validate_json(rows.dump_json(soft)) == soft
    untold = labelled({"systemone": systemone(kind, None)}, method="decision")
    assert b"label_mass" not in rows.dump_json(untold)
    assert rows.validate_json(rows.dump_json(untold)) == untold


def test_records_of_scores_stay_as_they_were() -> None:
    assert TypeAdapter(Judgement).dump_json(Judgement("p", "a", 0.5)) == (
        b'{"principle":"p","shown_first":"a","probability_first":0.5,"reasoning":null,'
        b'"prompt_tokens":null,"completion_tokens":null}'
    )


@pytest.mark.parametrize("mass", [0.0, 0.49])
def test_options_that_hold_too_little_are_no_label(mass: float) -> None:
    with pytest.raises(LowLabelMass, match=f"hold {mass:.2f} of the probability"):
        labelled({"systemone": systemone(lambda state, options: [0.5, 0.5], mass)}, method="decision")


def test_options_that_hold_half_are_a_label() -> None:
    assert labelled({"systemone": systemone(kind, 0.5)}, method="decision").probability_a == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (["I", "'m sorry", ", but I can't help with that."], RefusedAnswer),
        (["The", " kinder", " one"], LowLabelMass),
    ],
)
def test_an_answer_that_begins_with_no_letter_is_no_label(text: list[str], fault: type[Exception]) -> None:
    answer = chat(lambda _: [(token, {token: 0.9, "A": 0.1}) for token in text])
    with pytest.raises(fault):
        labelled({"chat/completions": answer}, method="multiple_choice")


def report_of(answers: dict[str, Answer], **settings: Any) -> JudgeReport:
    with ScriptedServer(answers) as server:
        model = ServerModel("m", server.url)
        how = Feedback(**settings)
        asking = partial(label, model=model, constitution=MINE, settings=how, seed=0)
        judged = asyncio.run(judge([(PAIR, "a")], asking))
    return judge_report("m", judged)


def test_refusals_and_low_masses_are_counted_apart() -> None:
    fine = report_of({"systemone": systemone(kind)}, method="decision")
    assert (fine.agreement.value, fine.refused.value, fine.unreadable.value, fine.failed.value) == (1, 0, 0, 0)
    assert fine.label_mass.value == pytest.approx(0.9)
    low = report_of({"systemone": systemone(lambda state, options: [0.5, 0.5], 0.1)}, method="decision")
    assert (low.refused.value, low.unreadable.value, low.failures) == (0, 1, {"LowLabelMass": 1})
    refused = report_of({"decisions": refusing}, method="decision")
    assert (refused.refused.value, refused.unreadable.value, refused.failures) == (1, 0, {"RefusedAnswer": 1})


def test_a_model_without_the_ability_is_refused_with_what_to_set() -> None:
    with pytest.raises(ModelError, match=r"scripted answers no decision questions. Set feedback\.method"):
        asyncio.run(
            label(
                PAIR,
                model=ScriptedModel(),
                constitution=MINE,
                settings=Feedback(method="decision"),
                seed=0,
            )
        )


# -- reward


@pytest.mark.parametrize(
    ("levels", "reward"),
    [([1, 0, 0, 0, 0], -1.0), ([0, 0, 1, 0, 0], 0.0), ([0, 0, 0, 0, 1], 1.0), ([0, 0, 0.5, 0.5, 0], 0.25)],
)
@pytest.mark.parametrize("endpoint", ["systemone", "decisions"])
def test_the_reward_is_the_expected_level(levels: list[float], reward: float, endpoint: str) -> None:
    def weigh(state: str, options: list[str]) -> list[float]:
        return levels if len(options) == 5 else [0.5, 0.5]

    answer = {"systemone": systemone(weigh), "decisions": decisions(weigh)}[endpoint]
    talk = (Message("user", "Hi?"), Message("assistant", "KIND"))
    with ScriptedServer({endpoint: answer}) as server:
        rate = FeedbackReward(ServerModel("m", server.url), MINE, Feedback(method="decision"), seed=0)
        assert rate([talk, talk]) == [pytest.approx(reward)] * 2
    assert "KIND" in str(server.requests[-1])


def test_an_answer_whose_levels_hold_too_little_gets_no_reward() -> None:
    def answer(request: Request) -> tuple[int, Any]:
        def weigh(state: str, options: list[str]) -> list[float]:
            return [1 / len(options)] * len(options)

        return systemone(weigh, 0.2 if "RUDE" in str(request) else 0.9)(request)

    talks = [(Message("user", "Hi?"), Message("assistant", text)) for text in ("KIND", "RUDE")]
    with ScriptedServer({"systemone": answer}) as server:
        rate = FeedbackReward(ServerModel("m", server.url), MINE, Feedback(method="decision"), seed=0)
        assert rate(talks) == [pytest.approx(0.0), None]
