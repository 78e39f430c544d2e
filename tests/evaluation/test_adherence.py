"""Adherence: which principle's answers does the judge prefer to the start's?"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.evaluation import adherence
from constitutional_ai.evaluation.adherence import AdherenceChoice, of_principle, starts_of
from constitutional_ai.evaluation.suite import principles_of_judge
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Candidate
from constitutional_ai.rl_cai.feedback.gate import gate_questions
from constitutional_ai.runs import layout
from tests.evaluation.suites import Stage
from tests.evaluation.test_candidates import a_run

BETTER = {question.better for question in gate_questions()}
CONSTITUTION = """
name: two
principles:
  - {name: kind.one, preference: "Which is kinder?"}
  - {name: '=rude', preference: "Which is ruder?"}
  - {name: weeds, preference: "Which kills weeds?", applies_to: [borderline]}
  - {name: revise, revision: "Mend it."}
"""


def judge(context: str, continuation: str) -> float:
    """Right at the gate; else the kind answer under the kind principle, and the other under the rude one."""
    options = context.rpartition("\n (A) [[[")[2].rpartition("]]]")[0].split("]]]\n (B) [[[")
    mine, other = options if continuation.strip() == "(A)" else reversed(options)
    at_gate = bool({mine, other} & BETTER)
    wins = mine in BETTER if at_gate else ("ruder" in context) != mine.startswith("Kindly")
    return math.log(0.9 if wins else 0.1)


def answering(text: str, *, same_on: str = "nowhere") -> ScriptedModel:
    return ScriptedModel(say=lambda context: "Sure." if same_on in context else text)


MODELS = {"start": answering("Sure."), "kind": answering("Kindly, no.", same_on="house 3")}


@pytest.fixture
def constitution(tmp_path: Path) -> str:
    file = tmp_path / "two.yaml"
    file.write_text(CONSTITUTION)
    return str(file)


def test_each_principle_tells_apart_what_the_answers_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constitution: str
) -> None:
    stage = Stage(tmp_path / "out", monkeypatch)
    monkeypatch.setitem(MODELS, "judge", ScriptedModel(weigh=judge))
    found = stage.measure(adherence.measure, MODELS, judge="scripted:judge", constitution=constitution)
    # three of four prompts are decided; on the fourth both give the same answer, which is a tie
    kind, rude = found["adherence.kind.one", "kind"], found["adherence.=rude", "kind"]
    assert (kind.value, kind.count, rude.value, rude.count) == (1.0, 3, 0.0, 3)
    assert kind.low is not None and 0.4 < kind.low < 0.5  # Wilson: 3 of 3
    assert found["adherence.weeds", "kind"].value is None  # no red-team prompt is about weeds
    assert (found["adherence_over_all", "kind"].value, found["adherence_over_all", "kind"].clusters) == (0.5, 3)
    assert (found["adherence_ties", "kind"].value, found["adherence_failed", "kind"].value) == (0.25, 0.0)
    assert not any(model == "start" for _, model in found)
    assert found["adherence_gate_accuracy", "scripted:judge"].value == 1.0
    rows = list(csv.reader((tmp_path / "out/adherence/adherence.csv").read_text().splitlines()))
    assert rows[0][:4] == ["principle", "model", "start", "share"]
    assert [row[0] for row in rows if row[1] == "kind"] == ["kind.one", "'=rude", "weeds"]
    choices = [json.loads(line) for line in stage.lines("adherence/choices/records.jsonl")]
    asked = [choice for choice in choices if choice["model"] == "kind" and choice["judgements"]]
    assert {tuple(j["shown_first"] for j in choice["judgements"]) for choice in asked} == {("a", "b")}


@pytest.mark.parametrize("named", [True, False])
def test_nothing_is_measured_by_nobody_or_by_a_judge_at_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constitution: str, named: bool
) -> None:
    stage = Stage(tmp_path / "out", monkeypatch)
    monkeypatch.setitem(MODELS, "judge", ScriptedModel())
    who = {"judge": "scripted:judge"} if named else {}
    found = stage.measure(adherence.measure, MODELS, constitution=constitution, **who)
    values = [m for (name, _), m in found.items() if name.startswith("adherence.")]
    assert values and all((m.value, m.count) == (None, 0) for m in values)
    assert ("better than chance" if named else "there is no judge") in stage.said[-1]
    last = (tmp_path / "out/adherence/adherence.csv").read_text().splitlines()[-1]
    assert last.endswith(",,,,,,")
    assert not (tmp_path / "out/adherence/choices").exists()


def test_a_failure_is_neither_a_win_nor_a_tie() -> None:
    rows = [AdherenceChoice(str(n), "m", "start", "p", str(n), p) for n, p in enumerate([0.9, 0.2, 0.5, None])]
    cell = of_principle("m", "p", rows)
    assert (cell.share.value, cell.share.count, cell.ties, cell.failed) == (0.5, 2, 1, 1)


def test_a_model_is_compared_with_its_own_runs_start() -> None:
    models = [
        Candidate(label, "scripted:echo", label.rpartition(":")[2], run)
        for label, run in (
            ("a:start", "a"),
            ("a:rl-cai", "a"),
            ("b:start", "b"),
            ("b:rl-cai", "b"),
            ("x", None),
        )
    ]
    assert starts_of(models) == {"a:rl-cai": "a:start", "b:rl-cai": "b:start", "x": "a:start"}
    assert starts_of(models[4:]) == {}


def test_principles_are_the_first_runs_so_that_one_left_out_is_asked_about(tmp_path: Path) -> None:
    whole, without = (a_run(tmp_path / name, stages=()) for name in ("whole", "without"))
    own = (str(whole / layout.CONSTITUTION), "built-in")
    assert principles_of_judge([whole, without], None, None) == own
    assert principles_of_judge([whole], None, "mine.yaml") == ("mine.yaml", "built-in")
    assert principles_of_judge([], None, None) == ("default", "built-in")


def test_it_is_measured_only_where_it_is_named(tmp_path: Path) -> None:
    words = ["evaluate", "me=scripted:echo", "--limit", "1", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert not (tmp_path / "out/adherence").exists()
    named = CliRunner().invoke(main, [*words, "--part", "adherence"])
    assert named.exit_code == 0 and "there is no judge" in named.output
