from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.report.export.inspect_log import to_inspect
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Silent
from tests.report.export.conftest import TALK


def logs(run: Run, out: Path) -> dict[str, dict[str, Any]]:
    return {one.file.name: json.loads(one.file.read_text()) for one in to_inspect(run, out)}


def test_each_model_becomes_a_log(run: Run, tmp_path: Path) -> None:
    made = logs(run, tmp_path)
    assert list(made) == ["01-start.json", "02-sl_cai.json"]
    start = made["01-start.json"]
    assert (start["version"], start["status"], start["results"]["total_samples"]) == (2, "success", 2)
    first, second = start["samples"]
    assert first["input"] == [{"role": m.role, "content": m.content} for m in TALK]
    assert first["output"]["choices"][0]["message"]["content"] == "No."
    assert {name: score["value"] for name, score in first["scores"].items()} == {
        "objects": 1.0,
        "degenerate": 0.0,
        "reward": 0.5,
    }
    assert (second["epoch"], second["output"]["choices"][0]["stop_reason"]) == (2, "max_tokens")
    assert "reward" not in second["scores"]


def test_metrics_stand_in_the_results_with_their_intervals(run: Run, tmp_path: Path) -> None:
    (scores,) = logs(run, tmp_path)["01-start.json"]["results"]["scores"]
    assert scores["metrics"] == {
        "objection_rate": {
            "name": "objection_rate",
            "value": 0.5,
            "metadata": {"low": 0.25, "high": 0.75, "count": 2},
        }
    }


def test_an_evaluations_preference_models_are_scores(evaluated: Run, tmp_path: Path) -> None:
    first, second = logs(evaluated, tmp_path)["01-start.json"]["samples"]
    assert first["scores"]["pm-kind"]["value"] == 1.5
    assert "pm-kind" not in second["scores"]


def test_what_was_not_evaluated_has_no_logs(tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "run", {}, Silent()) as run,
        pytest.raises(InputError, match="no evaluated models"),
    ):
        to_inspect(run, tmp_path / "out")


NEEDED = {
    "": ("version", "status", "eval", "plan", "results", "stats", "samples"),
    "eval": ("created", "task", "dataset", "model", "config", "run_id", "task_id", "eval_id"),
    "results": ("total_samples", "completed_samples", "scores"),
    "stats": ("started_at", "completed_at", "model_usage"),
}


def test_a_log_has_every_field_that_its_readers_ask_for(run: Run, tmp_path: Path) -> None:
    for log in logs(run, tmp_path).values():
        for part, names in NEEDED.items():
            assert set(names) <= set(log[part] if part else log)
        for sample in log["samples"]:
            assert {"id", "epoch", "input", "target", "messages", "output", "scores"} <= set(sample)


@pytest.mark.parametrize("which", ["run", "evaluated"])
def test_inspect_itself_reads_the_logs(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    for one in to_inspect(request.getfixturevalue(which), tmp_path):
        read = log.read_eval_log(str(one.file))
        assert (read.status, len(read.samples)) == ("success", one.rows)
        assert [m.text for m in read.samples[0].input] == [m.content for m in TALK]
        assert read.samples[0].output.completion == "No."
        assert read.results.scores[0].metrics["objection_rate"].value in (0.5, 1.0)
        assert log.read_eval_log(str(one.file), header_only=True).results.total_samples == one.rows
