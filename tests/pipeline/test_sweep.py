"""``cai sweep`` on scripted models, whose trainings are stand-ins that write a file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from constitutional_ai.cli import main
from constitutional_ai.errors import GateClosed
from constitutional_ai.pipeline import PIPELINE
from constitutional_ai.report.page import page
from constitutional_ai.runs import layout
from constitutional_ai.stages.job import Job
from tests.pipeline.stand_ins import untrained

REPORTED: list[Path] = []
"""The runs whose report was written, which takes seconds and is not: other tests write reports."""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    REPORTED.clear()
    monkeypatch.setattr(page, "write_report", lambda run: REPORTED.append(run.folder))
    return untrained(tmp_path, monkeypatch)


def sweep(*words: object) -> Result:
    return CliRunner().invoke(main, ["sweep", *map(str, words)], env={"COLUMNS": "160"})


def test_arms_share_what_is_the_same_and_are_compared_prompt_by_prompt(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = sweep(recipe, "rl_cai.kl_weight=0.1,0.9", "seed=0..1", f"out={out}")
    assert result.exit_code == 0, result.output
    base, other = out / "rl_cai.kl_weight=0.1+seed=0", out / "rl_cai.kl_weight=0.9+seed=0"
    links = {path.name for path in other.iterdir() if path.is_symlink()}
    assert links == {stage for stage in layout.STAGES[1:] if stage < "06"}  # the start of RL is the same
    assert not any(path.is_symlink() for path in base.iterdir())
    assert len(REPORTED) == 4 and {base, other} < set(REPORTED)
    assert not any((other / name).readlink().is_absolute() for name in links)
    assert (other / layout.RESPONSES).resolve() == base / layout.RESPONSES
    assert (out / "rl_cai.kl_weight=0.9+seed=1" / layout.RESPONSES).resolve().parent.name.endswith("0.1+seed=1")

    found = json.loads((out / "sweep.json").read_text())
    rows = {(r["arm"], r["value"]["model"], r["value"]["name"]): r for r in found["rows"]}
    objects = rows[other.name, "rl-cai", "objection_rate"]
    assert (objects["value"]["value"], objects["baseline"]) == (1.0, base.name)
    assert (objects["change"]["value"], objects["change"]["count"]) == (1.0, 3)
    assert rows[other.name, "start", "objection_rate"]["change"]["value"] == 0.0
    assert rows[base.name, "rl-cai", "objection_rate"]["change"] is None
    over = {(r["arm"], r["value"]["model"], r["value"]["name"]): r for r in found["over_seeds"]}
    seeds = over["rl_cai.kl_weight=0.9", "rl-cai", "objection_rate"]
    assert (seeds["value"]["value"], seeds["value"]["count"], seeds["change"]["count"]) == (1.0, 2, 2)
    cells = list(csv.DictReader((out / "sweep.csv").read_text().splitlines()))
    assert len(cells) == len(found["rows"]) + len(found["over_seeds"])
    assert {cell["over"] for cell in cells} == {"prompts", "seeds"}
    assert "rl_cai.kl_weight" in (out / "sweep.svg").read_text()
    assert "Over seeds" in result.output and "+1.00" in result.output


def test_the_same_command_makes_nothing_again_and_more_values_add_arms(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert sweep(recipe, "rl_cai.kl_weight=0.1,0.9", f"out={out}").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob(layout.MANIFEST)}
    again = sweep(recipe, "rl_cai.kl_weight=0.1,0.9,0.7", f"out={out}", "--json")
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    printed = json.loads(again.stdout)
    assert printed["arms"] == [f"rl_cai.kl_weight={weight}" for weight in ("0.1", "0.9", "0.7")]
    assert printed == json.loads((out / "sweep.json").read_text())
    assert printed["over_seeds"] == []


def test_an_arm_that_a_gate_stops_is_named_and_the_others_go_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = PIPELINE[layout.RL_CAI_MODEL]

    def guarded(job: Job) -> None:
        if job.recipe.rl_cai.kl_weight < 0.5:
            raise GateClosed("the gate is shut")
        train(job)

    monkeypatch.setitem(PIPELINE, layout.RL_CAI_MODEL, guarded)
    out = tmp_path / "out"
    result = sweep(recipe, "rl_cai.kl_weight=0.1,0.9", f"out={out}")
    assert result.exit_code == 0, result.output
    found = json.loads((out / "sweep.json").read_text())
    assert found["stopped"] == {"rl_cai.kl_weight=0.1": "the gate is shut"}
    assert found["arms"] == ["rl_cai.kl_weight=0.9"]
    assert {row["change"] for row in found["rows"]} == {None}  # nothing to compare with
    assert "rl_cai.kl_weight=0.1 has no results: the gate is shut" in result.output


def test_values_that_are_no_numbers_stand_on_the_axis_by_name(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = sweep(recipe, "control=null,empty", "evaluation.prompted=true", f"out={out}")
    assert result.exit_code == 0, result.output
    drawn = (out / "sweep.svg").read_text()
    assert drawn.index(">null<") < drawn.index(">empty<") and "prompted start" in drawn
    links = {path.name for path in (out / "control=empty").iterdir() if path.is_symlink()}
    assert links == {layout.RESPONSES}  # revisions are under another constitution
