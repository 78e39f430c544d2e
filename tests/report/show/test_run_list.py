from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.report.show.run_list import list_runs
from tests.report.conftest import HOSTILE, begin, finish, make

CONFIG = {"models.helpful": "hf:a", "models.feedback": "hf:b", "models.preference_model": None, "seed": 0}
STAGES = {"05-preference-labels": {"config": CONFIG, "inputs": {"constitution": "0123abcd"}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run, one that was begun, a damaged one, and folders that are none."""
    make(begin(tmp_path / "done"))
    (tmp_path / "done/run.json").write_text(json.dumps({"name": "done", "stages": STAGES}))
    (tmp_path / "group").mkdir()
    begin(tmp_path / "group/begun")
    (tmp_path / "group/begun/run.json").write_text(
        json.dumps({"date": "2025-01-01T00:00:00", "stages": STAGES})
    )
    begin(tmp_path / "spoilt")
    (tmp_path / "spoilt/run.json").write_text("{")
    (tmp_path / "an-evaluation").mkdir()
    (tmp_path / "an-evaluation/run.json").write_text(json.dumps({"stages": {}}))
    (tmp_path / "done/evaluation").mkdir()
    (tmp_path / "done/evaluation/run.json").write_text("{}")
    return tmp_path


def test_runs_are_listed_the_latest_first_with_what_came_of_them(folder: Path) -> None:
    done, begun, spoilt = list_runs(folder)
    assert [Path(run.folder).name for run in (done, begun, spoilt)] == ["done", "begun", "spoilt"]
    assert (done.stage, done.going_on, done.date) == ("08-evaluation", None, "2026-01-02T03:04:05+00:00")
    assert done.models == {"helpful": "hf:a", "feedback": "hf:b"}
    assert (done.constitution, done.digest) == (HOSTILE, "0123abcd")
    assert done.model == "rl-cai" and done.objections and done.refusals
    assert (done.objections.value, done.objections.count) == (0.5, 4)
    assert (done.refusals.value, done.refusals.count) == (0.0, 3)
    assert (begun.stage, begun.going_on, begun.model, begun.objections) == (
        None,
        "05-preference-labels",
        None,
        None,
    )
    assert spoilt.error and "run.json cannot be read" in spoilt.error and spoilt.models is None


def test_what_is_not_measured_is_not_zero(folder: Path) -> None:
    metrics = folder / "done/08-evaluation/metrics.json"
    rows = json.loads(metrics.read_text())
    for row in rows:
        if row["model"] == "rl-cai":
            row |= {"value": None, "low": None, "high": None, "count": 0}
    metrics.write_text(json.dumps(rows))
    assert list_runs(folder)[0].model == "sl-cai"
    (folder / "done/08-evaluation/stage.json").unlink()
    assert list_runs(folder)[0].objections is None


def test_the_command_prints_a_table_or_json_and_obeys_no_text(folder: Path) -> None:
    table = CliRunner().invoke(main, ["runs", str(folder)], env={"COLUMNS": "300"})
    assert table.exit_code == 0 and "\x1b[2J" not in table.output and "\u202e" not in table.output
    assert "rl-cai: 0.50 (0.15 to 0.85) of 4" in table.output and "not measured" in table.output
    printed = CliRunner().invoke(main, ["runs", str(folder), "--json"])
    listed = json.loads(printed.output)
    assert listed[0]["objections"]["count"] == 4 and listed[0]["constitution"] == HOSTILE
    nothing = CliRunner().invoke(main, ["runs", str(folder / "an-evaluation")])
    assert nothing.exit_code == 1 and nothing.output.startswith("cai: no run below")


def test_a_link_out_of_a_run_is_not_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_text("name: secret\n")
    (folder / "done/constitution.yaml").unlink()
    (folder / "done/constitution.yaml").symlink_to(secret)
    (linked,) = [run for run in list_runs(folder) if Path(run.folder).name == "done"]
    assert linked.constitution is None and "link that leads out" in str(linked.error)


def test_a_hundred_runs_take_a_moment(tmp_path: Path) -> None:
    constitution = "name: mine\nprinciples:\n" + "  - {name: a, preference: Which is kinder?}\n" * 2000
    for n in range(100):
        run = begin(tmp_path / f"run-{n}")
        (run.folder / "run.json").write_text(json.dumps({"stages": STAGES}))
        (run.folder / "constitution.yaml").write_text(constitution)
        for stage in ("01-responses", "02-revisions", "05-preference-labels"):
            finish(run.folder, stage)
    start = time.process_time()
    assert len(list_runs(tmp_path)) == 100
    assert time.process_time() - start < 2


def test_no_run_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cai run demo"):
        list_runs(tmp_path / "nowhere")
