from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Silent
from tests.report.export.conftest import TALK

needs_inspect = pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None, reason="needs constitutional-ai[inspect]"
)


@pytest.fixture
def logs() -> Callable[[Run, Path], dict[str, Any]]:
    """Return a function that exports a run, and returns the logs that Inspect lists, by the model's label."""
    from inspect_ai.log import list_eval_logs, read_eval_log

    from constitutional_ai.report.export.inspect_log import to_inspect

    def exported(run: Run, out: Path) -> dict[str, Any]:
        made = to_inspect(run, out)
        listed = list_eval_logs(str(out))
        assert {Path(info.name).name for info in listed} == {one.file.name for one in made}
        assert [read_eval_log(str(one.file), header_only=True).results.total_samples for one in made] == [
            one.rows for one in made
        ]
        read = [read_eval_log(info) for info in listed]
        return {log.eval.metadata["label"]: log for log in read}

    return exported


@needs_inspect
def test_inspect_lists_and_reads_a_log_of_each_model(logs: Any, run: Run, tmp_path: Path) -> None:
    made = logs(run, tmp_path)
    assert sorted(made) == ["sl/cai", "start"]
    assert (made["start"].status, made["start"].eval.model) == ("success", "hf:m")
    first, second = made["start"].samples
    assert [(m.role, m.text) for m in first.input] == [(m.role, m.content) for m in TALK]
    assert first.output.completion == "No."
    assert {name: score.value for name, score in first.scores.items()} == {
        "objects": 1.0,
        "degenerate": 0.0,
        "reward": 0.5,
    }
    assert (second.epoch, second.output.stop_reason) == (2, "max_tokens")
    assert "reward" not in second.scores


@needs_inspect
def test_a_second_export_replaces_the_first(logs: Any, run: Run, tmp_path: Path) -> None:
    assert len(logs(run, tmp_path)["start"].samples) == len(logs(run, tmp_path)["start"].samples) == 2


@needs_inspect
def test_metrics_stand_in_the_results_with_their_intervals(logs: Any, run: Run, tmp_path: Path) -> None:
    (scores,) = logs(run, tmp_path)["start"].results.scores
    (metric,) = scores.metrics.values()
    assert (metric.name, metric.value) == ("objection_rate", 0.5)
    assert metric.metadata == {"low": 0.25, "high": 0.75, "count": 2}


@needs_inspect
def test_an_evaluations_preference_models_are_scores(logs: Any, evaluated: Run, tmp_path: Path) -> None:
    first, second = logs(evaluated, tmp_path)["start"].samples
    assert first.scores["pm-kind"].value == 1.5
    assert "pm-kind" not in second.scores


@needs_inspect
def test_what_was_not_evaluated_has_no_logs(tmp_path: Path) -> None:
    from constitutional_ai.report.export.inspect_log import to_inspect

    with (
        open_run(tmp_path / "run", {}, Silent()) as run,
        pytest.raises(InputError, match="no evaluated models"),
    ):
        to_inspect(run, tmp_path / "out")


def export(run: Run, out: Path) -> Any:
    return CliRunner().invoke(main, ["export", str(run.folder), "--to", "inspect", "--out", str(out)])


@needs_inspect
def test_the_command_says_what_it_wrote(run: Run, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert ".eval: 2 samples" in done.output


def test_without_the_extra_the_command_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "inspect_ai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "constitutional_ai.report.export.inspect_log", raising=False)

    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "inspect_ai":
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    done = export(run, tmp_path / "out")
    assert done.exit_code == 1
    assert done.output == (
        "cai: the package 'inspect_ai' is not installed. Type: pip install 'constitutional-ai[inspect]', or in a clone "
        "of the source: pip install --editable '.[inspect]'\n"
    )
