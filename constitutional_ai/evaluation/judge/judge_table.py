"""A judge report for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from constitutional_ai.data.lines import format_counts
from constitutional_ai.evaluation.judge.judge import JudgeReport
from constitutional_ai.records import Metric


def table(report: JudgeReport) -> Group:
    """The metrics, the reliability table, and what was left out."""
    measured = Table("", "value", "95 % interval", "count", box=None, header_style="dim")
    for m in report.metrics:
        measured.add_row(m.name.replace("_", " "), _number(m.value), _interval(m), str(m.count))
    reliable = Table(
        "P(a is better)", "claimed", "found", "95 % interval", "count", box=None, header_style="dim"
    )
    for b in report.bins:
        between = f"{b.low:.1f} to {b.high:.1f}"
        found = b.found
        reliable.add_row(between, _number(b.claimed), _number(found.value), _interval(found), str(found.count))
    left_out = [f"{what}: {format_counts(n)}" for what, n in _left_out(report).items() if n]
    return Group(Text(str(report)), "", measured, "", reliable, *[Text(line) for line in left_out])


def _left_out(report: JudgeReport) -> dict[str, Mapping[str, int]]:
    return {"failures": report.failures, "unusable records": report.unusable}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(metric: Metric) -> str:
    return "–" if metric.low is None else f"{_number(metric.low)} to {_number(metric.high)}"
