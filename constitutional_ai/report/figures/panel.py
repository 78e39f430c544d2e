"""One panel: its lines, intervals and marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import Transform

from constitutional_ai.report.figures import style
from constitutional_ai.report.figures.figure import Panel, Point, Series
from constitutional_ai.report.figures.looks import Look
from constitutional_ai.report.figures.scales import in_the_paper, set_scales, shifts

SHORTEST = 26
"""Points. A shorter step has no room for an arrow's head between its markers."""
ARROW = "-|>,head_width=0.28,head_length=0.5"
SMALL: Any = {"fontsize": 7.5, "color": style.SOFT, "textcoords": "offset points"}


def draw_panel(axes: Axes, panel: Panel, looks: dict[str, Look]) -> None:
    axes.set_title(style.short(panel.title, 44))
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    set_scales(axes, panel)
    moved = shifts(axes, panel)
    for series in sorted(panel.series, key=lambda s: s.source == "measured"):
        _series(axes, panel, series, looks[series.name], moved.get(series.name, axes.transData))
    if panel.diagonal:
        axes.axline((0.5, 0.5), slope=1, color=style.SOFT, linewidth=0.9, linestyle=style.DASHES, zorder=1.5)
    if panel.level:
        y, name = panel.level
        axes.axhline(y, color=style.SOFT, linewidth=0.9, linestyle=style.DASHES, zorder=1.5)
        at: Any = ("axes fraction", "data")
        axes.annotate(name, (0.995, y), (0, 2.5), xycoords=at, ha="right", va="bottom", **SMALL)


def _series(axes: Axes, panel: Panel, series: Series, look: Look, at: Transform) -> None:
    paper = series.source == "paper"
    points, wide = [p for p in series.drawn if p.x is not None], in_the_paper(panel) if paper else 1.0
    xs: list[Any] = [p.x / wide for p in points if p.x is not None]
    ys = [p.y - panel.zero for p in points]
    how: Any = {"color": look.colour, "transform": at, "zorder": 2 if paper else 3}
    line = look.dashes if series.joined else "none"
    axes.plot(xs, ys, linestyle=line, linewidth=1.1 if paper else 1.7, **how)
    own = slice(1 if series.after else 0, None)  # where the line begins there is another series' marker
    dots = {**how, **look.dot, "zorder": 2.2 if paper else 4}
    axes.plot(xs[own], ys[own], look.marker, markersize=3.6 if paper else 6, **dots)
    (_band if panel.errors == "band" else _bars)(axes, panel, points, how)
    if panel.arrows:
        _arrows(axes, list(zip(xs, ys, strict=True)), look.colour)
    if panel.counts:
        _counts(axes, panel, points)
    for point in series.points:
        if point.x is None:
            _across(axes, panel, point, look.colour)


def _across(axes: Axes, panel: Panel, point: Point, colour: str) -> None:
    axes.axhline(point.y - panel.zero, color=colour, linewidth=1.3, linestyle=style.LEVEL, zorder=2.5)
    if point.low is not None and point.high is not None:
        low, high = point.low - panel.zero, point.high - panel.zero
        axes.axhspan(low, high, color=colour, alpha=0.08, linewidth=0, zorder=1.7)


def _counts(axes: Axes, panel: Panel, points: Sequence[Point]) -> None:
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.4}  # lines may pass there
    for point in points:
        y = point.y - panel.zero
        if point.count is not None and point.x is not None:
            axes.annotate(
                str(point.count), (point.x, y), (6, 4 if y < 0.05 else -10), bbox=behind, zorder=5, **SMALL
            )


def _bars(axes: Axes, panel: Panel, points: Sequence[Point], how: dict[str, Any]) -> None:
    bar: Any = {**how, "linewidth": 1.6, "alpha": 0.45, "solid_capstyle": "butt"}
    for p in points:
        x: Any = p.x
        y = p.y - panel.zero
        if p.low is not None and p.high is not None:
            axes.plot([x, x], [p.low - panel.zero, p.high - panel.zero], **bar)
        if p.x_low is not None and p.x_high is not None:
            axes.plot([p.x_low, p.x_high], [y, y], **bar)


def _band(axes: Axes, panel: Panel, points: Sequence[Point], how: dict[str, Any]) -> None:
    """Between points that have intervals. One without neighbours that have any keeps its bar."""
    nan = float("nan")
    xs: list[Any] = [p.x for p in points]
    lows = [nan if p.low is None else p.low - panel.zero for p in points]
    highs = [nan if p.high is None else p.high - panel.zero for p in points]
    look: Any = {**how, "alpha": 0.15, "linewidth": 0, "zorder": 1.8}
    axes.fill_between(xs, lows, highs, **look)
    known = [False, *(p.low is not None and p.high is not None for p in points), False]
    lone = [p for n, p in enumerate(points, 1) if known[n] and not known[n - 1] and not known[n + 1]]
    _bars(axes, panel, lone, how)


def _arrows(axes: Axes, places: Sequence[tuple[Any, Any]], colour: str) -> None:
    """A head in the middle of every step that is long enough to carry one. The limits must be set: lengths are as
    drawn."""
    for (x, y), (to_x, to_y) in pairwise(places):
        (left, low), (right, high) = axes.transData.transform([(x, y), (to_x, to_y)])
        if math.hypot(right - left, high - low) < SHORTEST * axes.figure.dpi / 72:
            continue
        middle = (x + 0.55 * (to_x - x), y + 0.55 * (to_y - y))
        before = (x + 0.5 * (to_x - x), y + 0.5 * (to_y - y))
        arrow = {"arrowstyle": ARROW, "color": colour, "linewidth": 0, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", middle, before, arrowprops=arrow)
