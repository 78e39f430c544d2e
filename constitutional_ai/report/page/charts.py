"""Draw the charts of the page as inline SVG, with colours from the style sheet, so that they suit both themes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from constitutional_ai.metrics.calibration import Bin
from constitutional_ai.records import Metric
from constitutional_ai.report.contents import LABEL
from constitutional_ai.report.figures.accuracy import reliability as of_bins
from constitutional_ai.report.figures.draw import (
    COLOURS,
    GREYS,
    GRID,
    INK,
    SOFT,
    UNDATED,
    draw_panel,
    look_of,
    styled,
)
from constitutional_ai.report.figures.figure import SHARES, Panel, Point, Series
from constitutional_ai.report.page.formatting import number
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import Steps

COLOUR = {layout.START: COLOURS[-1], layout.SL_CAI: COLOURS[0], layout.RL_CAI: COLOURS[1]}
MARKER = {layout.START: "o", layout.SL_CAI: "s", layout.RL_CAI: "D"}
VARIABLES = {INK: "--soft", SOFT: "--soft", GREYS[2]: "--rule", GRID: "--rule", "#ffffff": "--paper"} | {
    colour: f"--{role}" for role, colour in COLOUR.items()
}
"""Variables of the page's style sheet, by the colour in whose place they stand."""
WIDTH, HEIGHT = 3.6, 2.0
"""Size of a chart in inches."""
MANY = 12
"""Logs of more steps get a moving mean."""


class Chart(NamedTuple):
    title: str
    caption: str
    svg: str


def chart(
    title: str,
    caption: str,
    description: str,
    draw: Callable[[Axes], object],
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> Chart:
    """Return a chart of what ``draw`` draws on its axes. ``description`` is for screen readers.

    Strangers' names never stand in a drawing: it has numbers, and the table beside it has the names.
    """
    out = io.StringIO()
    with styled(), matplotlib.rc_context({"svg.hashsalt": title}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(out, format="svg", metadata=UNDATED, transparent=True)
    svg = out.getvalue()[out.getvalue().index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>| xmlns(:\w+)?=\"[^\"]*\"", "", svg, flags=re.S)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg.replace("xlink:href", "href"))
    used = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    opening = f'<svg role="img" aria-label="{escape(f"{title}: {description}")}"'
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    return Chart(title, caption, re.sub(r'<svg width="[^"]*" height="[^"]*"', lambda _: opening, svg, count=1))


def by_role(panel: Panel, **more: Any) -> Callable[[Axes], object]:
    """Return a function that draws a panel. Series have a role as ``colour``, or matplotlib's ``marker``."""
    looks = {
        one.name: look_of(
            one, COLOUR.get(one.colour or "", INK), one.marker or MARKER.get(one.colour or "", "^")
        )
        for one in panel.series
    }
    return lambda axes: (draw_panel(axes, panel, looks), axes.set(**more))


def intervals(title: str, metrics: Iterable[Metric]) -> Chart | None:
    """Draw a rate with its 95 % interval for each model, or return None if nothing was measured."""
    metrics = list(metrics)
    roles = [*layout.ROLES, *{m.model for m in metrics if m.model == layout.PROMPTED}]
    series = tuple(
        Series(role, (Point(m.value, n, x_low=m.low, x_high=m.high, note=number(m.value)),), colour=role)
        for m in metrics
        for n, role in enumerate(roles)
        if m.model == role and m.value is not None
    )
    panel = Panel("", "", "", series, x_span=SHARES, y_span=(len(roles) - 0.4, -0.4))
    description = "; ".join(f"{LABEL[one.name]} {one.points[0].note}" for one in series)
    draw = by_role(panel, yticks=range(len(roles)), yticklabels=[LABEL[role] for role in roles])
    return (
        chart(title, "share of answers", description, draw, height=0.4 + 0.3 * len(roles)) if series else None
    )


def curve(
    steps: Steps,
    role: str,
    key: str,
    title: str,
    caption: str,
    share: bool = False,
    level: tuple[float, str] | None = None,
) -> Chart | None:
    """Draw a logged number over the steps of a training, or return None if it was not logged.

    ``level`` is the height and name of a dashed line. A ``share`` is drawn from 0 to 1. Many points are drawn small,
    under their moving mean over a fifth of the steps.
    """
    rows: list[tuple[Any, Any]] = [(row.get("step"), row.get(key)) for row in steps]
    points = tuple(Point(x, y) for x, y in rows if _is_number(x) and _is_number(y))
    if not points:
        return None
    series = [Series("logged", points, colour=role)]
    if len(points) > MANY:
        half = len(points) // 10
        means = [fmean(p.y for p in points[max(0, n - half) : n + half + 1]) for n in range(len(points))]
        smooth = tuple(Point(p.x, y) for p, y in zip(points, means, strict=True))
        series = [
            Series("logged", points, faint=True, colour=role),
            Series("mean", smooth, colour=role, marker="none"),
        ]
    panel = Panel("", "step", "", tuple(series), "rounds", level=level, y_span=SHARES if share else None)
    description = f"from {number(points[0].y)} to {number(points[-1].y)} in {len(points)} steps"
    return chart(title, caption, description, by_role(panel))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def histogram(title: str, caption: str, values: Sequence[float], bins: int = 20) -> Chart | None:
    """Draw the number of values in equal bins of [0, 1], or return None if there are none."""
    if not values:
        return None
    counts = np.histogram(values, bins, (0, 1))[0]

    def draw(axes: Axes) -> None:
        axes.hist(values, bins, range=(0, 1), rwidth=0.84, color=COLOUR[layout.SL_CAI])
        axes.set(xlim=(0, 1), xlabel="P(answer A is better)")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))

    description = f"{len(values)} labels, by twentieths from 0 to 1: {counts.tolist()}"
    return chart(title, caption, description, draw)


def reliability(title: str, caption: str, bins: Sequence[Bin]) -> Chart | None:
    """Draw stated probabilities against observed frequencies, or return None if nothing was measured.

    Bins start at 0.5 if probabilities are of the model's choice, and at 0 if they are of answer A.
    """
    series = Series("probabilities", of_bins("", bins).points, colour=layout.SL_CAI)
    labels = ("P(answer A is better)", "how often A is better")
    if bins and bins[0].low >= 0.5:
        labels = ("P(its choice is better)", "how often the label agrees")
    panel = Panel("", *labels, (series,), diagonal=True, y_span=SHARES)
    description = "; ".join(
        f"probability {number(p.x)}, frequency {number(p.y)} of {p.count}" for p in series.points
    )
    return chart(title, caption, description, by_role(panel), height=2.6) if series.points else None
