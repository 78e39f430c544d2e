"""The report on a judge: every number here is worked out by hand."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.data.pairs import Pair, comparison_of, sample_pairs
from constitutional_ai.errors import InputError, ModelError
from constitutional_ai.evaluation.judge.judge import Judged, judge
from constitutional_ai.evaluation.judge.judge_report import judge_report
from constitutional_ai.evaluation.judge.judge_table import judge_table
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import (
    Comparison,
    Completion,
    Failure,
    GateAnswer,
    Judgement,
    Message,
    PreferenceLabel,
    Prompt,
    Side,
)
from constitutional_ai.rl_cai.feedback.settings import Feedback

MINE = Constitution(name="mine", principles=(Principle(name="kind", preference="Which is kinder?"),))


# -- judging


def pair(number: int) -> Pair:
    return Pair(f"p{number}", (Message("user", f"Question {number}?"),), f"GOOD {number}", f"BAD {number}")


PAIRS = [pair(n) for n in range(40)]
PLACED = [comparison_of(p, 0) for p in PAIRS]


def judged(weigh: Callable[[str, str], float], **changes: Any) -> list[Judged]:
    settings = Feedback(**changes)
    model = ScriptedModel(weigh=weigh)
    return asyncio.run(judge(PLACED, model=model, constitution=MINE, settings=settings, seed=0))


def reads(context: str, choice: str) -> float:
    """Gives the good answer 0.9, wherever it stands."""
    return math.log(0.9 if f"{choice} [[[GOOD" in context else 0.1)


def test_sides_are_drawn_and_the_right_side_holds_peoples_choice() -> None:
    assert all({"a": c.a, "b": c.b}[side].text.startswith("GOOD") for c, side in PLACED)
    assert 8 < sum(side == "a" for _, side in PLACED) < 32  # 20, sd 3.2
    assert [comparison_of(p, 0) for p in PAIRS] == PLACED
    assert len({c.id for c, _ in PLACED}) == 40


def test_a_judge_who_reads_agrees_with_people() -> None:
    report = judge_report("m", judged(reads))
    assert report.agreement.value == 1.0
    assert (report.flips.value, report.prefers_first.value, report.failed.value) == (0.0, 0.5, 0.0)
    assert report.brier.value == pytest.approx(0.01)
    assert report.calibration_error.value == pytest.approx(0.1)


@pytest.mark.parametrize("both", [True, False])
def test_a_judge_who_only_says_a_is_seen_to(both: bool) -> None:
    """FB-8: with both orders it ties and flips; with one it cannot flip, and still prefers what stands first."""
    weigh = lambda context, choice: math.log(0.9 if choice == " (A)" else 0.1)  # noqa: E731
    report = judge_report("m", judged(weigh, both_orders=both))
    assert report.prefers_first.value == 1.0
    assert (report.flips.value, report.ties.value) == ((1.0, 1.0) if both else (None, 0.0))
    assert report.prefers_longer.count == (0 if both else 40)
    if both:
        assert report.agreement.value == 0.0


def test_what_cannot_be_read_is_a_failure_and_no_label() -> None:
    made = judged(lambda context, choice: math.nan if "Question 7?" in context else reads(context, choice))
    assert [x.id for x in made] == [p.id for p in PAIRS]
    report = judge_report("m", made)
    assert report.failures == {"UnreadableAnswer": 1}
    assert (report.failed.value, report.failed.count, report.agreement.count) == (1 / 40, 40, 39)


def test_what_is_refused_is_told_from_what_cannot_be_read() -> None:
    answers = {"Question 7?": "I'm sorry, but I can't help with that.", "Question 8?": "Hm.", "Question 9?": ""}
    say = lambda context: next((a for q, a in answers.items() if q in context), "(A)")  # noqa: E731
    asked = judge(
        PLACED, model=ScriptedModel(say=say), constitution=MINE, settings=Feedback(method="votes"), seed=0
    )
    report = judge_report("m", asyncio.run(asked))
    assert report.failures == {"RefusedAnswer": 1, "UnreadableAnswer": 2}
    rates = {m.name: (m.value, m.count) for m in (report.refused, report.unreadable, report.failed)}
    assert rates == {"refused": (1 / 40, 40), "unreadable": (2 / 40, 40), "failed": (3 / 40, 40)}
    # Wilson's interval of 1 in 40.
    assert (report.refused.low, report.refused.high) == pytest.approx((0.0044, 0.1288), abs=1e-4)


def test_a_judge_that_is_not_asked_for_words_cannot_refuse() -> None:
    report = judge_report("m", judged(reads))
    assert (report.refused.value, report.unreadable.value) == (None, 0.0)


def test_a_model_that_is_gone_ends_it_with_its_own_error() -> None:
    def gone(context: str, choice: str) -> float:
        raise ModelError("no server")

    with pytest.raises(ModelError, match="no server"):
        judged(gone)


def test_a_constitution_without_such_principles_is_refused() -> None:
    with pytest.raises(InputError, match="no principle for method likelihood"):
        judged(reads, method="likelihood")


def test_some_are_drawn_from_the_whole_and_each_is_told_of() -> None:
    drawn = sample_pairs(PAIRS, 10, 0)
    assert drawn == sample_pairs(PAIRS[::-1], 10, 0) != PAIRS[:10]
    heard: list[Judged] = []
    model = ScriptedModel(weigh=reads)
    placed = [comparison_of(p, 0) for p in drawn]
    asked = judge(placed, model=model, constitution=MINE, settings=Feedback(), seed=0, on_judged=heard.append)
    assert {x.id for x in asyncio.run(asked)} == {x.id for x in heard} == {p.id for p in drawn}


# -- the report


def answer(
    p: float, better: Side, a: str = "aa", b: str = "b", *, method: str = "multiple_choice"
) -> GateAnswer:
    prompt = Prompt.of((Message("user", "Hi?"),), "red_team", "test")
    comparison = Comparison("x", prompt, *[Completion(text, "m", "stop", 0, 1) for text in (a, b)])
    asked = (Judgement("p", "a", p), Judgement("p", "b", 1 - p))
    return GateAnswer("x", PreferenceLabel("x", "digest", comparison, method, p, asked), better)


def test_the_calibration_is_that_worked_out_by_hand() -> None:
    made = [answer(p, side) for p, side in [(0.82, "a"), (0.88, "b"), (0.35, "b"), (0.05, "b")]]
    report = judge_report("m", made)
    full = {round(b.low, 1): (b.claimed, b.found.value, b.found.count) for b in report.bins if b.found.count}
    assert full == {0.0: (0.05, 0.0, 1), 0.3: (0.35, 0.0, 1), 0.8: (pytest.approx(0.85), 0.5, 2)}
    # (2 · |0.85 − 0.5| + 0.35 + 0.05) / 4
    assert report.calibration_error.value == pytest.approx(0.275)
    # (0.18² + 0.88² + 0.35² + 0.05²) / 4
    assert report.brier.value == pytest.approx((0.0324 + 0.7744 + 0.1225 + 0.0025) / 4)
    # (0.82 + 0.88 + 0.65 + 0.95) / 4
    assert report.confidence.value == pytest.approx(0.825)
    assert report.agreement.value == 0.75
    # √(2/π) · (√(0.82 · 0.18 + 0.88 · 0.12) + √(0.35 · 0.65) + √(0.05 · 0.95)) / 4
    spread = math.sqrt(0.1476 + 0.1056) + math.sqrt(0.2275) + math.sqrt(0.0475)
    assert report.error_by_luck.value == pytest.approx(math.sqrt(2 / math.pi) * spread / 4)


def test_a_judge_who_is_right_as_often_as_it_says_has_no_calibration_error() -> None:
    """FB-9, on both sides of one half."""
    made = [answer(0.75, "a")] * 3 + [answer(0.75, "b")] + [answer(0.25, "b")] * 3 + [answer(0.25, "a")]
    assert judge_report("m", made).calibration_error.value == 0.0


@pytest.mark.parametrize(("p", "low"), [(0.0, 0.0), (0.1, 0.1), (0.5, 0.5), (0.99, 0.9), (1.0, 0.9)])
def test_every_probability_has_a_bin(p: float, low: float) -> None:
    assert [b.low for b in judge_report("m", [answer(p, "a")]).bins if b.found.count] == [low]


def test_length_is_compared_with_people_on_the_same_pairs() -> None:
    made = [
        answer(0.9, "b"),  # the judge takes the longer, people the shorter
        answer(0.8, "a"),  # both the longer
        answer(0.2, "a", "a", "bb"),  # the judge the longer
        answer(0.2, "b", "aa", "b"),  # both the shorter
        answer(0.5, "a"),  # a tie
        answer(0.9, "a", "a", "b"),  # of one length
    ]
    report = judge_report("m", made)
    assert (report.prefers_longer.value, report.prefers_longer.count) == (0.75, 4)
    assert (report.people_prefer_longer.value, report.people_prefer_longer.count) == (0.25, 4)
    assert report.ties.value == pytest.approx(1 / 6)


def test_a_tie_is_one_whatever_floating_point_makes_of_it() -> None:
    p = (0.9 + (1 - 0.9) - 1e-16) / 2
    report = judge_report("m", [answer(p, "a"), answer(p, "b")])
    assert (report.ties.value, report.agreement.value) == (1.0, 0.0)


def test_by_likelihood_nothing_is_shown_first() -> None:
    assert judge_report("m", [answer(0.9, "a", method="likelihood")]).prefers_first.value is None


def test_nothing_measured_is_none_and_not_zero() -> None:
    report = judge_report("m", [Failure("x", "EmptyAnswer", "…")])
    assert (report.failed.value, report.refused.value, report.unreadable.value) == (1.0, 0.0, 1.0)
    of_all = (report.failed, report.refused, report.unreadable)
    assert {m.value for m in report.metrics if m not in of_all} == {None}
    assert str(report) == "m judged no pair. 1 × EmptyAnswer"
    assert {m.value for m in judge_report("m", []).metrics} == {None}


def test_the_table_says_it_all() -> None:
    made = [answer(0.9, "a"), answer(0.9, "b"), Failure("x", "EmptyAnswer", "…")]
    console = Console(width=100)
    with console.capture() as said:
        console.print(judge_table(judge_report("hf:[m]", made, {"an empty turn": 2})))
    text = said.get()
    assert "hf:[m] agrees with people in 0.50 of 2 pairs (95 % interval" in text
    assert "calibration error" in text and "0.9 to 1.0" in text
    assert "failures: 1 × EmptyAnswer" in text and "unusable records: 2 × an empty turn" in text
