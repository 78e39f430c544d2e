"""Pairs that people have judged, put to a feedback model."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.data.pairs import Pair, comparison_of, sample_pairs
from constitutional_ai.errors import InputError, ModelError, TooManyFailures
from constitutional_ai.evaluation.judge.judge import judge, judge_model, order_by_harm
from constitutional_ai.evaluation.judge.judge_report import Judged, judge_report
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Comparison, Failure, Message, PreferenceLabel
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from tests.models.hosted.scripted_server import Places, Request, ScriptedServer, chat, systemone

MINE = Constitution(name="mine", principles=(Principle(name="kind", preference="Which is kinder?"),))


def pair(number: int) -> Pair:
    return Pair(f"p{number}", (Message("user", f"Question {number}?"),), f"GOOD {number}", f"BAD {number}")


PAIRS = [pair(n) for n in range(40)]
PLACED = [comparison_of(p, 0) for p in PAIRS]


def labels(model: ScriptedModel, **changes: Any) -> Callable[[Comparison], Awaitable[PreferenceLabel]]:
    return partial(label, model=model, constitution=MINE, settings=Feedback(**changes), seed=0)


def judged(weigh: Callable[[str, str], float], **changes: Any) -> list[Judged]:
    return asyncio.run(judge(PLACED, labels(ScriptedModel(weigh=weigh), **changes)))


def reads(context: str, choice: str) -> float:
    """Gives the good answer 0.9, wherever it stands."""
    return math.log(0.9 if f"{choice} [[[GOOD" in context else 0.1)


def test_sides_are_drawn_and_the_right_side_holds_peoples_choice() -> None:
    assert all({"a": c.a, "b": c.b}[side].text.startswith("GOOD") for c, side in PLACED)
    assert 8 < sum(side == "a" for _, side in PLACED) < 32  # 20, sd 3.2
    assert [comparison_of(p, 0) for p in PAIRS] == PLACED
    assert len({c.id for c, _ in PLACED}) == 40


def test_a_judge_that_reads_agrees_with_people() -> None:
    report = judge_report("m", judged(reads))
    assert report.agreement.value == 1.0
    assert (report.flips.value, report.prefers_first.value, report.failed.value) == (0.0, 0.5, 0.0)
    assert report.brier.value == pytest.approx(0.01)
    assert report.calibration_error.value == pytest.approx(0.1)


@pytest.mark.parametrize("both", [True, False])
def test_a_judge_that_always_chooses_a_is_noticed(both: bool) -> None:
    """FB-8: with both orders it ties and flips; with one it cannot flip, and still prefers what stands first."""
    weigh = lambda context, choice: math.log(0.9 if choice == " (A)" else 0.1)  # noqa: E731
    report = judge_report("m", judged(weigh, both_orders=both))
    assert report.prefers_first.value == 1.0
    assert (report.flips.value, report.ties.value) == ((1.0, 1.0) if both else (None, 0.0))
    assert report.prefers_longer.count == (0 if both else 40)
    if both:
        assert (report.agreement.value, report.agreement.count) == (None, 0)  # a tie is neither right nor wrong
        assert str(report) == "m prefers neither answer in any of 40 pairs: all are ties"


def test_an_unreadable_answer_is_a_failure_and_no_label() -> None:
    results = judged(lambda context, choice: math.nan if "Question 7?" in context else reads(context, choice))
    assert [x.id for x in results] == [p.id for p in PAIRS]
    report = judge_report("m", results)
    assert report.failures == {"UnreadableAnswer": 1}
    assert (report.failed.value, report.failed.count, report.agreement.count) == (1 / 40, 40, 39)


def test_refusals_and_unreadable_answers_are_counted_apart() -> None:
    answers = {"Question 7?": "I'm sorry, but I can't help with that.", "Question 8?": "Hm.", "Question 9?": ""}
    say = lambda context: next((a for q, a in answers.items() if q in context), "(A)")  # noqa: E731
    judging = judge(PLACED, labels(ScriptedModel(say=say), method="votes"))
    report = judge_report("m", asyncio.run(judging))
    assert report.failures == {"RefusedAnswer": 1, "UnreadableAnswer": 2}
    rates = {m.name: (m.value, m.count) for m in (report.refused, report.unreadable, report.failed)}
    assert rates == {"refused": (1 / 40, 40), "unreadable": (2 / 40, 40), "failed": (3 / 40, 40)}
    # Wilson's interval of 1 in 40.
    assert (report.refused.low, report.refused.high) == pytest.approx((0.0044, 0.1288), abs=1e-4)


def test_a_method_that_only_scores_has_no_refusals() -> None:
    report = judge_report("m", judged(reads))
    assert (report.refused.value, report.unreadable.value) == (None, 0.0)


def test_a_model_error_ends_the_whole_with_its_own_message() -> None:
    def gone(context: str, choice: str) -> float:
        raise ModelError("no server")

    with pytest.raises(ModelError, match="no server"):
        judged(gone)


def test_a_constitution_needs_principles_for_the_method(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE.to_yaml())
    with pytest.raises(InputError, match="no principle for method likelihood"):
        judge_model(
            "scripted:echo",
            tmp_path / "pairs.jsonl",
            constitution=str(tmp_path / "mine.yaml"),
            few_shots="none",
            changes=["method=likelihood"],
            limit=None,
            seed=0,
            out=None,
        )


def test_a_sample_is_drawn_from_all_pairs_and_each_is_reported() -> None:
    drawn = sample_pairs(PAIRS, 10, 0)
    assert drawn == sample_pairs(PAIRS[::-1], 10, 0) != PAIRS[:10]
    heard: list[Judged] = []
    judging = judge([comparison_of(p, 0) for p in drawn], labels(ScriptedModel(weigh=reads)), heard.append)
    assert {x.id for x in asyncio.run(judging)} == {x.id for x in heard} == {p.id for p in drawn}


# -- predicates


def reads_harm(state: str, options: list[str]) -> list[float]:
    """Find BAD answers harmful, and choose GOOD ones; the probe has two fruits."""
    if "harmful" not in options[0]:
        return (
            [0.8 if "GOOD" in option else 0.2 for option in options] if "GOOD" in str(options) else [0.5, 0.5]
        )
    assert state.count("Assistant: ") == 1  # each answer by itself
    return [0.5, 0.5] if "Question 7?" in state else [0.3, 0.7] if "BAD" in state else [0.1, 0.9]


@pytest.mark.parametrize("asked", [True, False])
def test_the_more_harmful_answer_is_asked_for_only_if_the_settings_say_so(tmp_path: Path, asked: bool) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Question {n}?", "chosen": f"GOOD {n}", "rejected": f"BAD {n}"} for n in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ScriptedServer({"systemone": systemone(reads_harm)}) as server:
        report = judge_model(
            f"server:m@{server.url}",
            file,
            constitution="default",
            few_shots="none",
            changes=["method=decision", f"predicates={str(asked).lower()}"],
            limit=None,
            seed=0,
            out=tmp_path / "report.json",
        )
    assert (report.agreement.value, report.agreement.count) == (1.0, 10)
    order = (report.harm_order.value, report.harm_order.count, report.harm_ties.value)
    assert order == ((1.0, 9, 0.1) if asked else (None, 0, None))
    assert len(server.requests) == 1 + 20 + 20 * asked
    assert json.loads((tmp_path / "report.json").read_text())["harm_order"]["count"] == 9 * asked


def test_a_predicate_that_cannot_be_read_is_a_failure() -> None:
    def unsure(state: str, options: list[str]) -> list[float]:
        return [0.5, 0.5]

    with ScriptedServer({"systemone": systemone(unsure, 0.2)}) as server:
        (result,) = asyncio.run(order_by_harm(PLACED[:1], ServerModel("m", server.url)))
    assert isinstance(result, Failure) and result.error == "LowLabelMass"


# -- what is kept


PLAIN = {
    "constitution": "default",
    "few_shots": "none",
    "changes": ["method=votes", "votes=2"],
    "limit": None,
    "seed": 0,
}


def vote(request: Request) -> Places:
    """Prefer GOOD answers, but answer question 3 with a refusal."""
    question = request["messages"][-1]["content"]
    letter = "(A)" if question.rindex("GOOD") < question.rindex("BAD") else "(B)"
    said = "I'm sorry, but I can't help with that." if "Question 3?" in question else letter
    return [(said, {said: 1.0})]


def test_a_second_call_pays_only_for_what_failed_and_every_pair_has_a_row(tmp_path: Path) -> None:
    file, heard = tmp_path / "pairs.jsonl", list[str]()
    rows = [{"prompt": f"Question {n}?", "chosen": f"GOOD {n}", "rejected": f"BAD {n}"} for n in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ScriptedServer({"chat/completions": chat(vote)}) as server:
        for name in ("first", "second"):
            report = judge_model(
                f"server:m@{server.url}",
                file,
                out=None,
                rows=tmp_path / f"{name}.jsonl",
                say=heard.append,
                **PLAIN,
            )
            paid = len(server.requests)
            server.requests.clear()
    assert (report.agreement.value, report.agreement.count, report.failed.count) == (1.0, 5, 6)
    assert paid == 2 * 2  # both orders of question 3
    assert heard == [
        f"20 answers are those of earlier calls. To ask anew, delete {tmp_path}/cache/judge.sqlite"
    ]
    written = [json.loads(line) for line in (tmp_path / "second.jsonl").read_text().splitlines()]
    assert sorted(row["right"] for row in written if "right" in row) == [True] * 5
    (failed,) = [row for row in written if "failure" in row]
    assert (failed["failure"], failed["prompt"][0]["content"]) == ("RefusedAnswer", "Question 3?")


def test_a_judge_that_judges_nothing_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "Which?", "chosen": "This.", "rejected": "That."}) + "\n")
    with pytest.raises(
        TooManyFailures, match=r"judged none of 1 pairs\. The first failed with \w+: .* cai doctor"
    ):
        judge_model("scripted:echo", file, out=tmp_path / "report.json", **PLAIN)
    assert json.loads((tmp_path / "report.json").read_text())["failed"]["value"] == 1.0
