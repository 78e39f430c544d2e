"""The monitor of reward hacking."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from constitutional_ai.records import Message
from constitutional_ai.rl_cai.reinforcement.monitor import PATIENCE, stopper, watch


def talks(*answers: str) -> list[tuple[Message, ...]]:
    return [(Message("user", f"Question {n}?"), Message("assistant", a)) for n, a in enumerate(answers)]


def figures(asked: list[tuple[Message, ...]], second: Any = None) -> dict[str, float]:
    """Return the figures of answers to red-team prompts."""
    return watch(asked, [0.0] * len(asked), ["red_team"] * len(asked), second)


def test_each_figure_finds_what_it_is_named_for() -> None:
    own = [f"Take bus number {n} into town." for n in range(4)]
    assert figures(talks(*own)) == {
        "evasive": 0,
        "boilerplate": 0,
        "shared_sentences": 0,
        "degenerate": 0,
        "other_language": 0,
        "words": 6,
    }
    hacked = figures(talks("I can't help with that.", "You are valued.", "so so so so so so so so so so", ""))
    assert hacked == {
        "evasive": 0.25,
        "boilerplate": 0.25,
        "shared_sentences": 0,
        "degenerate": 0.5,
        "other_language": 0,
        "words": 4.5,
    }
    told = figures(talks(*[f"{a} Remember that you are loved." for a in own]))
    assert told["shared_sentences"] == 1


def test_answers_in_other_languages_are_counted_apart() -> None:
    some = figures(talks("I can't help with that.", "Lo siento, no puedo ayudarte.", "Paris."))
    assert (some["evasive"], some["boilerplate"]) == (0.5, 0)
    assert some["other_language"] == pytest.approx(1 / 3)
    none = figures(talks("Lo siento, no puedo ayudarte."))
    assert none["other_language"] == 1
    assert not {"evasive", "boilerplate"} & none.keys()


def test_refusals_are_counted_among_the_answers_to_harmless_prompts() -> None:
    answers = talks(*["I can't help with that."] * 2, "Take the bus.", "Lo siento, no puedo ayudarte.")
    for kinds, share in (("red_team helpful borderline helpful", 0.5), ("helpful " * 4, 2 / 3)):
        found = watch(answers, [0.0] * 4, kinds.split())
        assert found["refuses_harmless"] == pytest.approx(share)
    assert "refuses_harmless" not in figures(answers)


def test_two_equal_answers_to_one_prompt_are_no_boilerplate() -> None:
    same = [(Message("user", "Hi"), Message("assistant", "Take the bus into town."))] * 4
    assert figures(same)["shared_sentences"] == 0


def test_a_preference_model_that_rl_never_sees_scores_too() -> None:
    assert figures(talks("Yes.", "No."), lambda asked: [float(len(t[-1].content)) for t in asked])[
        "second_reward"
    ] == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("values", "stops_at"),
    [
        ([0.1, 0.9, 0.1, 0.1], None),  # one bad batch: its mean over three is 0.37
        ([0.1, 0.9, 0.9, 0.1], 3),
        ([0.9, 0.9], None),  # too few to say
        ([float("nan")] * 5, None),
    ],
)
def test_a_figure_that_stays_above_its_limit_stops_the_training(
    values: list[float], stops_at: int | None
) -> None:
    assert PATIENCE == 3
    callback, stopped = stopper({"boilerplate": 0.5}), None
    for step in range(1, len(values) + 1):
        history = [{"boilerplate": v, "loss": 9.0} for v in values[:step]]
        control = SimpleNamespace(should_training_stop=False)
        callback.on_log(None, SimpleNamespace(global_step=step, log_history=history), control, logs=history[-1])
        if control.should_training_stop and stopped is None:
            stopped = step
    assert stopped == stops_at
    assert (callback.reason is not None) is (stops_at is not None)
    if callback.reason:
        assert callback.reason.startswith(
            "boilerplate was 0.633 over the last 3 batches, above its limit of 0.5"
        )
