"""Export results: ``parquet`` for tables, ``inspect_log`` for Inspect, ``trainer_files`` for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from constitutional_ai.evaluation.finished import finished_metrics
from constitutional_ai.records import Metric
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import load_json
from constitutional_ai.runs.run import Run


class Written(NamedTuple):
    """A file that was written."""

    file: Path
    rows: int
    note: str = ""
    """What was left out, in words."""


def metrics_of(run: Run) -> tuple[Metric, ...]:
    """Return the metrics of an evaluation's finished parts, or of a run's last stage. Empty if there are none."""
    stage = run.stage(layout.EVALUATION)
    if (metrics := finished_metrics(run.folder)) or not (stage / layout.MANIFEST).exists():
        return metrics
    run.check(layout.EVALUATION)
    return load_json(stage / layout.METRICS, tuple[Metric, ...]) or ()
