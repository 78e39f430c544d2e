"""Write a figure's data as CSV: a row for every point, with the measured value and what is subtracted to draw it."""

from __future__ import annotations

import csv
import io

from constitutional_ai.report.figures.figure import PaperFigure
from constitutional_ai.safe_text import visible

COLUMNS = (
    "figure", "panel", "series", "source", "model", "x", "x_low", "x_high", "y", "low", "high", "zero", "count",
)  # fmt: skip
FORMULAS = ("=", "+", "-", "@", "\t", "\n")
"""Characters that start a formula in a spreadsheet, or that it skips before one."""


def as_csv(figure: PaperFigure) -> str:
    """Return the CSV text. An empty cell is a number that does not exist; ``y`` minus ``zero`` is what is drawn."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    for panel, series, point in figure.points():
        rows.writerow(
            (
                figure.number,
                *map(cell, (panel.title, series.name, series.source, point.model)),
                *map(_number, (point.x, point.x_low, point.x_high, point.y, point.low, point.high, panel.zero)),
                "" if point.count is None else point.count,
            )
        )
    return out.getvalue()


def cell(text: str) -> str:
    """Return a stranger's text such that no spreadsheet takes it for a formula.

    >>> cell("=1+1")
    "'=1+1"
    """
    shown = visible(text)
    return f"'{shown}" if shown.lstrip(" ").startswith(FORMULAS) else shown


def _number(value: float | None) -> str:
    """Return the shortest text that parses to the same number."""
    if value is None:
        return ""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
