"""Baselines beside a run of the method: figures 2, 3 and 8 show all arms, each by its own name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import evaluation_folders as made
import pytest

from constitutional_ai.records import Candidate, Metric
from constitutional_ai.report.contents import Contents
from constitutional_ai.report.figures.paper_figures import paper_figure
from constitutional_ai.report.page.tables import tables

ARMS = {
    "demo": {"start": "start", "sl-cai": "sl-cai", "rl-cai": "rl-cai", "prompted": "prompted"},
    "hh": {"start": "start", "sft": "sl-cai", "rlhf": "rl-cai"},
}


@pytest.fixture
def arms(tmp_path: Path) -> Path:
    models = [
        Candidate(
            f"{run}:{label}", f"hf:{label}", role, made.run(tmp_path / run), 135, 64 if role == "rl-cai" else 0
        )
        for run, labels in ARMS.items()
        for label, role in labels.items()
    ]
    return made.evaluation(tmp_path / "arms", models, made.elos(models))


@pytest.mark.parametrize("number", [2, 3, 8])
def test_every_arm_has_its_points_and_its_name(number: int, arms: Path) -> None:
    figure = paper_figure(number, [arms])
    shown = {point.model for _, _, point in figure.points()}
    assert shown >= {"demo: prompted start", "demo: RL-CAI", "hh: RLHF", "hh: SFT"}
    assert "hh: RL-CAI" not in shown
    assert figure.left_out == ()


def test_a_line_over_size_is_named_after_what_its_models_are(tmp_path: Path) -> None:
    models = [
        Candidate(f"{run}:{label}", f"hf:{label}", "rl-cai", made.run(tmp_path / run), size, 64)
        for label, runs in (("rl-cai", ("a", "b")), ("rlhf", ("c", "d")))
        for run, size in zip(runs, (135, 600), strict=True)
    ]
    figure = paper_figure(3, [made.evaluation(tmp_path / "sizes", models, made.elos(models))])
    assert {series.name for series in figure.panels[0].series} == {"RL-CAI", "RLHF"}


def test_adherence_is_a_table_of_principles_by_models() -> None:
    metrics = [
        Metric(f"adherence.{principle}", model, 0.5, 0.4, 0.6, 20)
        for principle in ("kind", "a.b")
        for model in ("sl-cai", "rl-cai")
    ]
    rates = Metric("adherence_ties", "sl-cai", 0.1, 0.0, 0.2, 20)
    contents: Any = SimpleNamespace(evaluated=(*metrics, rates))
    other, adherence = tables(cast(Contents, contents))
    assert (adherence.head, adherence.columns) == ("Principle", ["sl-cai", "rl-cai"])
    assert [name for name, _ in adherence.rows] == ["kind", "a.b"]
    assert adherence.rows[1][1] == metrics[2:]
    assert other.columns == ["adherence ties"]
