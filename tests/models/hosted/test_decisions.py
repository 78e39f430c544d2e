"""Decision endpoints: which of two a server has, what it is asked, and how its replies are read."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import BrokenReply, InputError, ModelError, RefusedAnswer
from constitutional_ai.models.abilities import DecisionQuestion, Reading
from constitutional_ai.models.cached import cached
from constitutional_ai.models.decision_answer import read_decision
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.recipes.recipe_file import load_recipe
from tests.models.hosted.scripted_server import Answer, ScriptedServer, decisions, refusing, systemone

CHOICE = DecisionQuestion("choice", "Which is kinder?", ("Hello!", "Go away."))
SCORE = DecisionQuestion("score", "How good is it?", ("bad", "good"))
PREDICATE = DecisionQuestion("predicate", "Is it kind?")
STATE = "Human: Hi?"


def one(**answer: Any) -> dict[str, Any]:
    return {"answers": {"answer": answer}, "usage": {"input_tokens": 3, "output_tokens": 0}}


def listed(**answer: Any) -> dict[str, Any]:
    return {"answers": [answer]}


def pairs(name: str, *given: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{name: key, "probability": p} for key, p in given]


READ: list[tuple[DecisionQuestion, dict[str, Any], tuple[float, ...], float | None]] = [
    (CHOICE, one(type="choice", probabilities={"A": 0.25, "B": 0.75}), (0.25, 0.75), None),
    (CHOICE, one(type="choice", probabilities={"B": 0.75, "A": 0.25}), (0.25, 0.75), None),
    (CHOICE, one(type="choice", probabilities={"A": 0.25, "B": 0.75}, label_mass=0.5), (0.25, 0.75), 0.5),
    (CHOICE, one(type="choice", probabilities={"A": 0, "B": 1}, label_mass=0), (0, 1), 0),
    (
        CHOICE,
        {
            **one(type="choice", probabilities={"A": 0.5, "B": 0.5}),
            "diagnostics": {"answer": {"label_mass": 1.0001}},
        },
        (0.5, 0.5),
        1.0,
    ),
    (CHOICE, listed(type="choice", probabilities=pairs("value", ("B", 0.9), ("A", 0.1))), (0.1, 0.9), None),
    (SCORE, one(type="score", probabilities={"0": 0.2, "1": 0.8}), (0.2, 0.8), None),
    (SCORE, listed(type="score", probabilities=pairs("label", ("bad", 0.2), ("good", 0.8))), (0.2, 0.8), None),
    (PREDICATE, one(type="noul", noul=0.8), (0.8, 0.2), None),
    (PREDICATE, one(type="noul", noul=0, label_mass=0.5), (0, 1), 0.5),
    (PREDICATE, listed(type="predicate", probability=0.8), (0.8, 0.2), None),
    (PREDICATE, listed(type="predicate", probability=1.0001), (1, 0), None),
]


@pytest.mark.parametrize(("question", "reply", "probabilities", "mass"), READ)
def test_an_answer_of_either_shape_is_read(
    question: DecisionQuestion, reply: dict[str, Any], probabilities: tuple[float, ...], mass: float | None
) -> None:
    reading = read_decision(reply, question)
    assert (reading.probabilities, reading.label_mass) == (pytest.approx(probabilities), mass)


def test_rounded_probabilities_add_up_to_one_again() -> None:
    reading = read_decision(one(type="choice", probabilities={"A": 0.33, "B": 0.66}), CHOICE)
    assert sum(reading.probabilities) == pytest.approx(1.0)
    assert reading.probabilities[0] == pytest.approx(1 / 3)


BROKEN: list[Any] = [
    None,
    [],
    {},
    {"answers": {}},
    {"answers": [{"type": "choice"}, {"type": "choice"}]},
    one(type="choice"),
    one(type="choice", probabilities={"A": 1.0}),
    one(type="choice", probabilities={"A": 0.5, "B": 0.2, "C": 0.3}),
    one(type="choice", probabilities={"A": 0.5, "C": 0.5}),
    one(type="choice", probabilities={"A": 0.5, "B": 0.1}),  # what is missing is nobody's
    one(type="choice", probabilities={"A": math.nan, "B": 0.5}),
    one(type="choice", probabilities={"A": "0.5", "B": 0.5}),
    one(type="choice", probabilities={"A": True, "B": 0.0}),
    one(type="choice", probabilities={"A": 1.5, "B": -0.5}),
    one(type="noul", probabilities={"A": 0.5, "B": 0.5}),
    one(type="choice", probabilities={"A": 0.5, "B": 0.5}, label_mass=math.inf),
    one(type="choice", probabilities={"A": 0.5, "B": 0.5}, label_mass="all"),
    listed(type="choice", probabilities=["A", "B"]),
]


@pytest.mark.parametrize("reply", BROKEN)
def test_a_reply_without_a_probability_for_each_option_is_broken(reply: Any) -> None:
    with pytest.raises(BrokenReply):
        read_decision(reply, CHOICE)


BROKEN_PREDICATES: list[Any] = [
    one(type="noul"),
    one(type="noul", probability=0.8),
    listed(type="predicate", noul=0.8),
    listed(type="predicate", probability=None),
    listed(type="predicate", probability=math.nan),
    listed(type="predicate", probability=1.5),
    listed(type="predicate", probability=-0.5),
    listed(type="predicate", probability=True),
    listed(type="predicate", probability="0.8"),
    listed(type="predicate", probability=[0.8]),
    listed(type="predicate", probability=10**400),
    listed(type=["predicate"], probability=0.8),
    listed(type="choice", probability=0.8),
    listed(probability=0.8),
    one(type="noul", noul=0.8, label_mass="all"),
    {"answers": [{"type": "predicate", "probability": 0.8}] * 2},
]


@pytest.mark.parametrize("reply", BROKEN_PREDICATES)
def test_a_reply_without_a_probability_of_yes_is_broken(reply: Any) -> None:
    with pytest.raises(BrokenReply):
        read_decision(reply, PREDICATE)


@pytest.mark.parametrize("question", [CHOICE, SCORE])
def test_a_predicate_answers_no_other_question(question: DecisionQuestion) -> None:
    with pytest.raises(BrokenReply):
        read_decision(listed(type="predicate", probability=0.8), question)


def test_a_refusal_is_no_answer() -> None:
    with pytest.raises(RefusedAnswer):
        read_decision(listed(type="refusal", name="answer"), CHOICE)
    with pytest.raises(RefusedAnswer):
        read_decision(listed(type="refusal", name="answer"), PREDICATE)


# -- which endpoint a server has


def first_is_likely(state: str, options: list[str]) -> list[float]:
    return [0.8, *[0.2 / (len(options) - 1)] * (len(options) - 1)]


def lacking(status: int, message: str = "The model does not support it") -> Answer:
    return lambda request: (status, {"error": {"message": message}})


def decided(server: ScriptedServer, *questions: DecisionQuestion) -> list[Reading]:
    model = ServerModel("m", server.url)

    async def in_turn() -> list[Reading]:
        return [await model.decide(STATE, question) for question in questions]

    return asyncio.run(in_turn())


def test_many_questions_at_once_need_one_probe() -> None:
    async def at_once(model: ServerModel) -> None:
        await asyncio.gather(*[model.decide(STATE, CHOICE) for _ in range(4)])

    with ScriptedServer({"systemone": systemone(first_is_likely)}) as server:
        model = ServerModel("m", server.url)
        for _ in range(2):  # an event loop each, as in RL
            asyncio.run(at_once(model))
    assert len(server.requests) == 1 + 2 * 4


def test_a_server_is_asked_in_its_own_shape() -> None:
    with ScriptedServer({"systemone": systemone(first_is_likely)}) as server:
        choice, score = decided(server, CHOICE, SCORE)
    assert server.paths() == ["systemone"] * 3
    assert server.requests[1:] == [
        {
            "path": "systemone",
            "model": "m",
            "state": STATE,
            "questions": {
                "answer": {"type": question.kind, "instructions": question.text, "criteria": criteria}
            },
        }
        for question, criteria in ((CHOICE, {"A": "Hello!", "B": "Go away."}), (SCORE, ["bad", "good"]))
    ]
    assert choice.probabilities == score.probabilities == (0.8, pytest.approx(0.2))
    assert (choice.label_mass, choice.usage) == (0.9, (7, 1))
    assert '"A": 0.8' in choice.raw


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_the_one_endpoint_is_asked_at_the_other(status: int) -> None:
    with ScriptedServer({"systemone": lacking(status), "decisions": decisions(first_is_likely)}) as server:
        choice, score = decided(server, CHOICE, SCORE)
    assert server.paths() == ["systemone", *["decisions"] * 3]
    assert server.requests[2] == {
        "path": "decisions",
        "model": "m",
        "input": STATE,
        "questions": [
            {
                "type": "choice",
                "name": "answer",
                "instructions": "Which is kinder?",
                "choices": [
                    {"value": "A", "description": "Hello!"},
                    {"value": "B", "description": "Go away."},
                ],
            }
        ],
    }
    assert choice.probabilities == score.probabilities == (0.8, pytest.approx(0.2))
    assert choice.label_mass is None


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        (
            {"systemone": systemone(first_is_likely)},
            {"questions": {"answer": {"type": "noul", "instructions": "Is it kind?"}}},
        ),
        (
            {"decisions": decisions(first_is_likely)},
            {"questions": [{"type": "predicate", "name": "answer", "instructions": "Is it kind?"}]},
        ),
    ],
)
def test_a_predicate_has_instructions_and_no_options(answers: dict[str, Answer], asked: Any) -> None:
    with ScriptedServer(answers) as server:
        (reading,) = decided(server, PREDICATE)
    assert server.requests[-1]["questions"] == asked["questions"]
    assert reading.probabilities == pytest.approx((0.8, 0.2))


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"systemone": lacking(501)},
        {"systemone": lacking(400, "The labels ['A', 'B'] are not distinct single tokens for this model.")},
        {"systemone": lambda request: (200, {"choices": []})},  # a server that answers anything
    ],
)
def test_a_server_with_neither_endpoint_is_refused_before_the_first_question(
    answers: dict[str, Answer],
) -> None:
    with (
        ScriptedServer(answers) as server,
        pytest.raises(ModelError, match=r"answers no decision questions .*feedback\.method=votes"),
    ):
        decided(server, CHOICE)
    assert list(dict.fromkeys(server.paths())) == ["systemone", "decisions"]
    assert STATE not in str(server.requests)


def test_a_key_that_is_refused_is_named_as_such() -> None:
    with (
        ScriptedServer({"systemone": lacking(401)}) as server,
        pytest.raises(ModelError, match="refuses the key"),
    ):
        decided(server, CHOICE)


def test_a_refusal_of_one_question_is_no_lack_of_the_endpoint() -> None:
    with ScriptedServer({"decisions": refusing}) as server, pytest.raises(RefusedAnswer):
        decided(server, CHOICE)


def test_the_same_question_is_sent_once(tmp_path: Path) -> None:
    with ScriptedServer({"systemone": systemone(first_is_likely)}) as server:
        name = f"server:m@{server.url}"
        for _ in range(2):
            with cached(ServerModel("m", server.url), name, tmp_path / "calls", print) as model:
                reading = asyncio.run(model.decide(STATE, CHOICE))  # type: ignore[attr-defined]
                assert (reading.probabilities, reading.label_mass) == ((0.8, pytest.approx(0.2)), 0.9)
    assert len(server.requests) == 2  # the probe and the question


# -- recipes


def test_a_recipe_says_what_a_server_can_do() -> None:
    server = "models.feedback=server:m@http://127.0.0.1:1/v1"
    for settings in (["method=decision"], ["method=multiple_choice"], ["method=votes"]):
        assert load_recipe("demo", [server, *(f"feedback.{s}" for s in settings), "feedback.format=auto"])
    auto = [server, "feedback.format=auto"]
    assert load_recipe("demo", [*auto, "feedback.method=decision", "rl_cai.reward=feedback"])
    for changes, message in (
        (["feedback.method=chain_of_thought"], r"scores no continuations in chat format.*multiple_choice"),
        (["rl_cai.reward=feedback", "feedback.method=votes"], r"feedback\.method=decision"),
        (["feedback.method=decision", "feedback.format=plain"], r"set format to auto"),
    ):
        with pytest.raises(InputError, match=message):
            load_recipe("demo", [*auto, *changes])
    with pytest.raises(InputError, match=r"returns no log-probabilities"):
        load_recipe("demo", ["models.feedback=anthropic:m", "feedback.method=decision", "feedback.format=auto"])
