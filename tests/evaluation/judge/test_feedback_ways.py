"""``cai doctor`` tells in which ways a server compares answers, how they agree, and which to set."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import pytest

from constitutional_ai.evaluation.judge.feedback_ways import (
    QUESTIONS,
    SETTINGS,
    WAYS,
    WayResult,
    ask_in_every_way,
    checks_of,
    examine_ways,
)
from constitutional_ai.models.doctor import Check
from constitutional_ai.models.hosted.letters import PROBE
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.rl_cai.feedback.gate import gate_questions
from tests.models.hosted.scripted_server import Answer, Places, Request, ScriptedServer, chat, systemone

BETTER = {question.better for question in gate_questions()}


def knows(state: str, options: list[str]) -> list[float]:
    """Prefer the right answer of a gate question. The probe has none."""
    right = [option in BETTER for option in options]
    return [0.9 if is_right else 0.1 for is_right in right] if any(right) else [0.5, 0.5]


STORY: Places = [("Once", {"Once": 0.6, "The": 0.4})]


def is_probe(request: Request) -> bool:
    return bool(request["messages"][-1]["content"] == PROBE[0].content)


def says(request: Request) -> Places:
    """Answer (A) or (B) with the right letter, and anything else with a story."""
    if is_probe(request):
        return STORY
    text = request["messages"][-1]["content"]
    first = text.partition("\n (A) [[[")[2].partition("]]]")[0]
    letter = "A" if first in BETTER else "B"
    return [(letter, {letter: 0.7, "The": 0.3})]


def examined(answers: dict[str, Answer]) -> dict[str, Check]:
    with ScriptedServer(answers) as server:
        checks = checks_of(asyncio.run(ask_in_every_way(ServerModel("m", server.url))))
    return {check.name: check for check in checks}


def silent(request: Request) -> tuple[int, Any]:
    """Answer as a chat without log-probabilities does."""
    return chat(says)({**request, "logprobs": False})


@pytest.mark.parametrize(
    ("answers", "works"),
    [
        (
            {"chat/completions": chat(says), "systemone": systemone(knows)},
            ["letters by top_logprobs", "decisions", "votes"],
        ),
        ({"chat/completions": silent, "systemone": systemone(knows)}, ["decisions", "votes"]),
        ({"chat/completions": silent, "systemone": systemone(knows, 0.1)}, ["votes"]),
        ({"chat/completions": silent}, ["votes"]),
        ({}, []),
    ],
)
def test_the_way_to_set_is_the_first_that_works(answers: dict[str, Answer], works: list[str]) -> None:
    checks = examined(answers)
    assert [name for name in WAYS if checks[name].outcome == "yes"] == works
    if not works:
        assert checks["feedback"].outcome == "no"
    else:
        assert SETTINGS[works[0]] in checks["feedback"].details


def test_ways_are_compared_on_the_same_questions() -> None:
    def contrary(state: str, options: list[str]) -> list[float]:
        return [1 - p for p in knows(state, options)]

    checks = examined({"chat/completions": chat(says), "systemone": systemone(contrary)})
    letters, decisions = checks["letters by top_logprobs"].details, checks["decisions"].details
    assert (
        letters
        == f"{QUESTIONS} of {QUESTIONS} right; 0 flip with the order; the options hold 0.70 of the probability"
    )
    assert decisions.startswith(f"0 of {QUESTIONS} right; 0 flip with the order")
    assert f"same winner as letters by top_logprobs in 0 of {QUESTIONS}, P 0.90 apart" in decisions
    assert f"in {QUESTIONS} of {QUESTIONS}, P 0.00 apart" in checks["votes"].details


def test_a_judge_at_chance_is_said_to_be_so() -> None:
    first = chat(lambda request: STORY if is_probe(request) else [("A", {"A": 0.9, "B": 0.1})])
    checks = examined({"chat/completions": first})
    assert f"{QUESTIONS} flip with the order" in checks["letters by top_logprobs"].details
    assert "no better than chance" in checks["feedback"].details
    assert "chance" not in examined({"chat/completions": chat(says)})["feedback"].details


def test_a_way_that_fails_says_why() -> None:
    checks = examined({"chat/completions": silent, "systemone": systemone(knows, 0.1)})
    assert "the options hold 0.10 of the probability" in checks["decisions"].details
    assert "tells no log-probabilities" in checks["letters by top_logprobs"].details


def test_a_way_that_takes_too_long_is_judged_by_the_answers_so_far() -> None:
    """Decisions answer at once and votes never, as a server does that answers one request at a time."""

    def hangs_after(number: int, answer: Answer) -> Answer:
        numbers = itertools.count()

        def slowly(request: Request) -> tuple[int, Any]:
            if not request.get("logprobs") and next(numbers) >= number:
                never.wait(30)
            return answer(request)

        return slowly

    never, said = threading.Event(), list[str]()
    probe, asked = 1, 2 * 5  # five of eight questions, in both orders
    answers = {
        "chat/completions": hangs_after(0, silent),
        "systemone": hangs_after(probe + asked, systemone(knows)),
    }
    with ScriptedServer(answers) as server:
        asking = ask_in_every_way(ServerModel("m", server.url), said.append, seconds=3)
        checks = {check.name: check for check in checks_of(asyncio.run(asking))}
        never.set()
    late = "within 3 s: the server is slow or busy"
    assert checks["scores by echo"].outcome == "no"
    assert checks["votes"] == Check("votes", "not checked", f"only 0 of {QUESTIONS} {late}")
    assert checks["decisions"].outcome == checks["feedback"].outcome == "yes"
    assert checks["decisions"].details.startswith("5 of 5 right")
    assert f"3 without a label: only 5 of {QUESTIONS} {late}" in checks["decisions"].details
    assert SETTINGS["decisions"] in checks["feedback"].details
    assert [text.rpartition(": ")[2] for text in said] == list(WAYS)


def test_a_server_that_answers_nothing_in_time_is_not_called_unable() -> None:
    result = WayResult("votes", {}, "only 0 of 8 within 1 s", is_late=True)
    assert checks_of([result]) == [
        Check("votes", "not checked", "only 0 of 8 within 1 s"),
        Check("feedback", "no", "no way was answered in time"),
    ]


def test_a_way_that_a_server_lacks_is_given_up_after_one_question() -> None:
    with ScriptedServer({"chat/completions": silent}) as server:
        asyncio.run(ask_in_every_way(ServerModel("m", server.url)))
    assert 1 <= server.paths().count("systemone") <= 2  # the question in both orders


def test_every_setting_is_one_that_a_recipe_takes() -> None:
    assert list(SETTINGS) == list(WAYS)
    for way, setting in SETTINGS.items():
        recipe = load_recipe("demo", ["models.feedback=server:m@http://127.0.0.1:1/v1", *setting.split()])
        assert recipe.feedback.method == WAYS[way].method


def test_a_model_in_this_process_is_not_asked() -> None:
    assert examine_ways("scripted:echo") == examine_ways("bundled:smollm2-135m") == []
