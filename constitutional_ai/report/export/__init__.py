"""Export results for other tools: ``parquet`` for tables, ``inspect_log`` for Inspect."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from constitutional_ai.records import Metric
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import load_json
from constitutional_ai.runs.run import Run


class Written(NamedTuple):
    """A file that was written."""

    file: Path
    rows: int


def metrics_of(run: Run) -> tuple[Metric, ...]:
    """Return the metrics of an evaluation's folder, or of a run's last stage. Empty if there are none."""
    paths = [run.folder / layout.METRICS, run.stage(layout.EVALUATION) / layout.METRICS]
    return next((metrics for path in paths if (metrics := load_json(path, tuple[Metric, ...]))), ())
