"""A judge report as tables for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from constitutional_ai.data.lines import format_counts
from constitutional_ai.evaluation.judge.judge_report import JudgeReport
from constitutional_ai.records import Metric


def judge_table(report: JudgeReport) -> Group:
    """Return the metrics, the reliability table, and counts of all that was left out."""
    measured = Table("", "value", "95 % interval", "count", box=None, header_style="dim")
    for m in report.metrics:
        measured.add_row(m.name.replace("_", " "), _number(m.value), _interval(m), str(m.count))
    reliability = Table(
        "P(a is better)", "claimed", "observed", "95 % interval", "count", box=None, header_style="dim"
    )
    for b in report.bins:
        observed = b.observed
        reliability.add_row(
            f"{b.low:.1f} to {b.high:.1f}",
            _number(b.claimed),
            _number(observed.value),
            _interval(observed),
            str(observed.count),
        )
    left_out = {"failures": report.failures, "unusable records": report.unusable}
    lines = [Text(f"{what}: {format_counts(counts)}") for what, counts in left_out.items() if counts]
    return Group(Text(str(report)), "", measured, "", reliability, *lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(metric: Metric) -> str:
    return "–" if metric.low is None else f"{_number(metric.low)} to {_number(metric.high)}"
