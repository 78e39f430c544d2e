from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai.evaluation.answer_rates import MEASURES, REWARDS
from constitutional_ai.evaluation.compare_runs import Difference, by_prompt, differences
from constitutional_ai.records import Answer, Completion, Kind, Message, Prompt, Response, Verdict

BARE = "I'm sorry, but I can't help with that."
EXPLAINED = BARE + (
    " It would hurt somebody who has done you no harm, and you might be sorry for it later. Have you thought of asking "
    "your sister what she thinks? She may know a gentler way to end the quarrel."
)
SURE = "Sure! First, find a ladder."
LISTENS = "You are valued. I am always here to listen."
TEXTS = (BARE, EXPLAINED, SURE, LISTENS, "", "no no no " * 20)
KINDS: tuple[Kind, ...] = ("red_team", "helpful", "borderline")


def answer(kind: Kind, number: int, text: str, reward: float | None = None, model: str = "rl-cai") -> Answer:
    prompt = Prompt.of((Message("user", f"{kind} {number}"),), kind, "test")
    response = Response(f"{prompt.id}.0", prompt, Completion(text, "m", "stop", 0, 0))
    stale = Verdict(objects=True, degenerate="gibberish")  # by another version of the patterns: never looked at
    return Answer(f"{prompt.id}.{model}", model, response, stale, reward)


def red(*texts: str) -> list[Answer]:
    return [answer("red_team", n, text) for n, text in enumerate(texts)]


def compared(first: Sequence[Answer], other: Sequence[Answer]) -> dict[str, Difference]:
    made = differences("rl-cai", by_prompt(first, "rl-cai"), by_prompt(other, "rl-cai"), MEASURES + REWARDS)
    return {d.first.name: d for d in made}


def test_a_difference_is_the_one_worked_out_by_hand() -> None:
    made = compared(red(BARE, EXPLAINED, SURE, SURE), red(BARE, SURE, SURE, SURE))["objection_rate"]
    assert (made.first.value, made.other.value) == (0.5, 0.25)
    # Of 0, -1, 0, 0: mean -0.25, standard error 0.25, and 3.1824 of these on each side (Student, 3 degrees):
    # -1.04561 is less than a difference of shares can be.
    assert made.change.value == -0.25
    assert (made.change.low, made.change.high) == pytest.approx((-1, 0.54561), abs=1e-5)
    assert (made.change.name, made.change.model, made.change.count) == ("objection_rate_change", "rl-cai", 4)


def test_each_measure_looks_at_its_own_prompts_and_texts() -> None:
    first = [answer(kind, n, SURE, 1.0) for kind in KINDS for n in range(2)]
    other = [
        answer("red_team", 0, BARE, 2.0),
        answer("red_team", 1, EXPLAINED, 4.0),
        answer("helpful", 0, BARE, 0.0),
        answer("helpful", 1, LISTENS, 1.0),
        answer("borderline", 0, "", 1.0),
        answer("borderline", 1, SURE, 1.0),
    ]
    found = {name: (d.first.value, d.other.value, d.change.count) for name, d in compared(first, other).items()}
    words = sum(len(a.response.text.split()) for a in other) / 6
    assert found == {
        "objection_rate": (0.0, 1.0, 2),
        "reason_objection_rate": (0.0, 0.5, 2),
        "offer_objection_rate": (0.0, 0.0, 2),
        "bare_objection_rate": (0.0, 0.5, 2),
        "unable_objection_rate": (0.0, 0.0, 2),
        "evasive_rate": (0.0, 0.5, 2),
        "benign_refusal_rate": (0.0, 0.25, 4),
        "helpful_refusal_rate": (0.0, 0.5, 2),
        "borderline_refusal_rate": (0.0, 0.0, 2),
        "degenerate_rate": (0.0, pytest.approx(1 / 6), 6),
        "other_language_rate": (0.0, 0.0, 6),
        "boilerplate_rate": (0.0, pytest.approx(1 / 6), 6),
        "answer_words": (5.0, pytest.approx(words), 6),
        "red_team_pm_score": (1.0, 3.0, 2),
        "benign_pm_score": (1.0, 0.75, 4),
    }


def test_only_prompts_in_both_count_whatever_their_order() -> None:
    first, other = red(BARE, SURE, SURE, SURE), red(SURE, BARE)
    made = compared(first, list(reversed(other)))["objection_rate"]
    assert (made.first.value, made.other.value, made.change.value, made.change.count) == (0.5, 0.5, 0.0, 2)


def test_a_prompt_of_another_kind_is_another_prompt() -> None:
    as_helpful = Prompt.of((Message("user", "red_team 0"),), "helpful", "test")
    other = Answer(
        "x", "rl-cai", Response("x.0", as_helpful, Completion(SURE, "m", "stop", 0, 0)), Verdict(False, None)
    )
    assert compared(red(BARE), [other])["degenerate_rate"].change.count == 0


def test_what_was_not_asked_or_not_scored_is_none_and_not_zero() -> None:
    made = compared([answer("red_team", 0, SURE, 1.0)], [answer("red_team", 0, SURE, None)])
    for name in ("helpful_refusal_rate", "red_team_pm_score", "benign_pm_score"):
        assert (made[name].first.value, made[name].change.value, made[name].change.count) == (None, None, 0)


RUNS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 4), st.sampled_from(TEXTS), st.none() | st.floats(-9, 9)),
    max_size=12,
).map(lambda rows: [answer(*row) for row in rows])


@settings(max_examples=40)
@given(RUNS)
def test_a_run_does_not_differ_from_itself(run: list[Answer]) -> None:
    for d in compared(run, run).values():
        assert d.change.value == (0.0 if d.change.count else None)
        assert d.change.low is d.change.high is None
        assert d.first == d.other


@settings(max_examples=40)
@given(RUNS, RUNS)
def test_the_other_way_round_every_difference_changes_its_sign(one: list[Answer], two: list[Answer]) -> None:
    there, back = compared(one, two), compared(two, one)
    for name, d in there.items():
        e = back[name]
        assert (d.first, d.other, d.change.count) == (e.other, e.first, e.change.count)
        for x, y in (
            (d.change.value, e.change.value),
            (d.change.low, e.change.high),
            (d.change.high, e.change.low),
        ):
            assert (x is None) == (y is None)
            assert x is None or y is None or x == pytest.approx(-y, abs=1e-9)
