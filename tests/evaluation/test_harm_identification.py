from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.errors import ModelError, StageChanged, UnreadableAnswer
from constitutional_ai.evaluation.harm_identification import MODES, HarmAnswer, measure, softmax
from constitutional_ai.evaluation.harm_questions import (
    HARMFUL_OR_ETHICAL,
    KIND_OF_HARM,
    HarmQuestion,
    worked_examples,
)
from constitutional_ai.models.model import Context
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Message
from constitutional_ai.runs.rows import adapter
from tests.evaluation.suites import Stage
from tests.paper_files import PAPER, paper, rows

KINDS_OF_HARM = 9


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path / "out", monkeypatch)


def row(question: HarmQuestion, number: int, option: int) -> str:
    talk = (Message("user", f"Rob house {number}?"), Message("assistant", f"HarmAnswer {chr(65 + option)}."))
    wrong = [choice for choice in question.choices if choice != question.choices[option]]
    about = question.about(talk, "plain")
    return json.dumps({"prompt": about, "corrects": [question.choices[option]], "incorrects": wrong}) + "\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "paper"
    (folder / "evals").mkdir(parents=True)
    (folder / "evals/HarmfulVsEthical.jsonl").write_text(
        "".join(row(HARMFUL_OR_ETHICAL, n, n % 2) for n in range(8)) + row(HARMFUL_OR_ETHICAL, 0, 0)
    )
    (folder / "HarmfulnessClassification.jsonl").write_text(
        "".join(row(KIND_OF_HARM, n, n) for n in range(KINDS_OF_HARM))
    )
    return folder


def told(context: str) -> str:
    """The letter that the conversation in question says is right."""
    return context.rpartition("HarmAnswer ")[2][0]


def knows(context: str, choice: str) -> float:
    return math.log(0.9 if choice == f" ({told(context)})" else 0.01)


KNOWING = ScriptedModel(say=lambda context: "Let me see.", weigh=knows)


def test_both_questions_are_asked_in_three_ways(stage: Stage, copy: Path) -> None:
    found = stage.measure(measure, {"knows": KNOWING, "coin": ScriptedModel()}, paper=copy)
    for mode in MODES:
        right, coin = (
            found[f"harm_identification.{mode}", "knows"],
            found[f"harm_identification.{mode}", "coin"],
        )
        assert (right.value, right.count, right.clusters) == (1.0, 9, 8)  # one conversation stands there twice
        assert (coin.value, coin.count) == (None, 0)  # a tie is neither right nor wrong
        tied = found[f"harm_identification_ties.{mode}", "coin"]
        assert (tied.value, tied.count) == (1.0, 9)
        assert found[f"harm_identification_ties.{mode}", "knows"].value == 0.0
        assert found[f"harm_classification.{mode}", "knows"].value == 1.0
        assert found[f"harm_classification_failed.{mode}", "knows"].value == 0.0
    rows = [adapter(HarmAnswer).validate_json(line) for line in stage.lines("harm/records.jsonl")]
    assert len({one.id for one in rows}) == len(rows) == 2 * len(MODES) * (9 + KINDS_OF_HARM)
    sure = next(one for one in rows if one.model == "knows" and one.task == "identification")
    assert sum(sure.probabilities or ()) == pytest.approx(1)
    assert (sure.probabilities or ())[sure.option] == pytest.approx(0.9 / 0.91)


def test_a_model_that_always_says_the_same_is_right_by_chance(stage: Stage, copy: Path) -> None:
    model = ScriptedModel(weigh=lambda context, choice: -float(choice != " (A)"))
    found = stage.measure(measure, {"same": model}, paper=copy)
    assert found["harm_classification.zero_shot", "same"].value == pytest.approx(1 / KINDS_OF_HARM)
    assert found["harm_identification.zero_shot", "same"].value == pytest.approx(5 / 9)


class Listening(ScriptedModel):
    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        heard.append(context)
        return await super().score(context, continuations)


heard: list[Context] = []


def test_worked_examples_are_all_shown_in_an_order_drawn_for_each_question(stage: Stage, copy: Path) -> None:
    heard.clear()
    stage.measure(measure, {"base": Listening(format="plain", say=lambda c: "Hm.")}, paper=copy)
    shots = [KIND_OF_HARM.text_about(shot.conversation) for shot in worked_examples("kind_of_harm")]
    shown = [str(c) for c in heard if all(shot in str(c) for shot in shots)]
    assert len(shown) == KINDS_OF_HARM
    orders = {tuple(sorted(range(KINDS_OF_HARM), key=lambda n: text.index(shots[n]))) for text in shown}
    assert len(orders) > KINDS_OF_HARM / 2
    thought = [str(c) for c in heard if "step by step: Hm.\n\nHuman:\nSo the answer is:" in str(c)]
    assert len(thought) == 9 + KINDS_OF_HARM
    assert not any(shots[0] in text for text in thought)


def failing(in_text: str) -> Callable[[str, str], float]:
    return lambda context, choice: math.nan if in_text in context else knows(context, choice)


def test_what_cannot_be_read_is_counted_and_never_scored(stage: Stage, copy: Path) -> None:
    refuses = lambda context: "" if "house 1?" in context else "I'm sorry, I can't help with that."  # noqa: E731
    found = stage.measure(measure, {"m": ScriptedModel(weigh=failing("house 3?"), say=refuses)}, paper=copy)
    right, failed = (
        found["harm_identification.zero_shot", "m"],
        found["harm_identification_failed.zero_shot", "m"],
    )
    assert (right.value, right.count, failed.value, failed.count) == (1.0, 8, pytest.approx(1 / 9), 9)
    thought = found["harm_identification.chain_of_thought", "m"]
    assert (thought.value, thought.count) == (None, 0)
    rows = [adapter(HarmAnswer).validate_json(line) for line in stage.lines("harm/records.jsonl")]
    why = Counter(
        (one.failure or "").partition(":")[0] for one in rows if one.task == "identification" and one.failure
    )
    assert why == {"UnreadableAnswer": 2, "EmptyAnswer": 1, "RefusedAnswer": 8}


def test_without_the_papers_files_nothing_is_measured_and_no_model_is_asked(
    stage: Stage, tmp_path: Path
) -> None:
    model = ScriptedModel(say=lambda context: 1 / 0, weigh=lambda context, choice: 1 / 0)  # type: ignore[arg-type,return-value]
    for paper_folder in (None, tmp_path):
        found = stage.measure(measure, {"m": model}, paper=paper_folder)
        assert {name for name, _ in found} == {
            f"harm_{task}{part}.{mode}"
            for task in ("identification", "classification")
            for part in ("", "_ties", "_failed")
            for mode in MODES
        }
        assert all((m.value, m.low, m.high, m.count) == (None, None, None, 0) for m in found.values())
    assert "no --paper, so harm_identification is not measured" in stage.said[0]


class Speaking(ScriptedModel):
    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        raise ModelError("none inside a chat")


def test_who_gives_no_log_probabilities_is_not_measured(stage: Stage, copy: Path) -> None:
    found = stage.measure(measure, {"chat": Speaking()}, paper=copy)
    assert all((m.value, m.count) == (None, 0) for m in found.values())


def test_other_questions_under_the_same_name_are_refused(stage: Stage, copy: Path) -> None:
    stage.measure(measure, {"m": ScriptedModel()}, paper=copy)
    with pytest.raises(
        StageChanged, match=r"harm was made from another version of the questions\. Pass --redo harm"
    ):
        stage.measure(measure, {"m": ScriptedModel()}, paper=copy, limit=3)


@given(st.lists(st.floats(-1e4, 0), min_size=2, max_size=9))
def test_probabilities_add_up_and_keep_the_order_of_scores(scores: list[float]) -> None:
    found = softmax(scores)
    assert math.fsum(found) == pytest.approx(1)
    assert [p == max(found) for p in found].index(True) <= scores.index(max(scores))
    assert all(
        (p >= q) or x < y
        for p, x in zip(found, scores, strict=True)
        for q, y in zip(found, scores, strict=True)
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_no_answer(bad: float) -> None:
    with pytest.raises(UnreadableAnswer):
        softmax([0.0, bad])


@paper
def test_every_released_question_is_asked_byte_for_byte(stage: Stage) -> None:
    heard.clear()
    found = stage.measure(measure, {"m": Listening(format="plain")}, paper=PAPER)
    asked = {str(c) for c in heard}
    files = ("HarmfulVsEthical", "HarmfulnessClassification")
    for file, name, count in zip(files, ("identification", "classification"), (254, 287), strict=True):
        assert {each["prompt"] for each in rows(PAPER / "evals" / f"{file}.jsonl")} <= asked
        tied = [found[f"harm_{name}_ties.{mode}", "m"] for mode in MODES]  # every answer of a coin is a tie
        assert {(each.value, each.count) for each in tied} == {(1.0, count)}
