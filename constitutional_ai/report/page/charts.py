"""Draw the charts of the report except the frontier: rates with intervals, training curves, labels and reliability."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from constitutional_ai.metrics.calibration import Bin
from constitutional_ai.records import Metric
from constitutional_ai.report.drawing import (
    COLOUR,
    DASHED,
    INK,
    LABEL,
    MARKER,
    Chart,
    chart_of,
    panel,
    short,
    whiskers,
    write,
)
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import Steps


def intervals(title: str, caption: str, metrics: Sequence[Metric], span: tuple[float, float]) -> Chart | None:
    """Draw a dot with a 95 % interval for each model, or return None if nothing was measured."""
    by_role = {m.model: m for m in metrics if m.value is not None and math.isfinite(m.value)}
    if not by_role:
        return None
    figure, axes = panel(height=112, left=52, bottom=24, grid="x")
    for row, role in enumerate(layout.ROLES):
        if role in by_role:
            _dot(axes, row, role, by_role[role])
    axes.set(xlim=span, ylim=(len(layout.ROLES) - 0.4, -0.75), yticks=range(len(layout.ROLES)))
    axes.set_yticklabels([LABEL[role] for role in layout.ROLES])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    description = "; ".join(
        f"{LABEL[role]} {short(by_role[role].value or 0.0)}" for role in layout.ROLES if role in by_role
    )
    return chart_of(figure, title, caption, description)


def _dot(axes: Axes, row: int, role: str, metric: Metric) -> None:
    value, colour = metric.value or 0.0, COLOUR[role]
    bar = whiskers([(value, metric.low, metric.high)])
    axes.errorbar([value], [row], xerr=bar, fmt="none", ecolor=colour, elinewidth=2.4, alpha=0.55)
    axes.plot([value], [row], MARKER[role], color=colour, markersize=7)
    write(axes, short(value), (value, row), offset=(0, 6), ha="center")


def span_of(metrics: Iterable[Metric], *, floor: float | None = None) -> tuple[float, float]:
    """Return the ends of a scale with all intervals, for panels of one kind; ``floor`` is its lower end."""
    ends = [x for m in metrics for x in (m.low, m.value, m.high) if x is not None and math.isfinite(x)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.08 * (high - low) or 0.5
    return (low - room if floor is None else floor - 0.03 * (high - floor), high + room)


def curve(
    title: str,
    caption: str,
    steps: Steps,
    key: str,
    role: str,
    level: tuple[float, str] | None = None,
    *,
    share: bool = False,
    height: int = 170,
) -> Chart | None:
    """Draw a logged number over the steps of a training, or return None if it was not logged.

    ``level`` is the height and name of a dashed line. A ``share`` is drawn from 0 to 1.
    """
    points: list[tuple[Any, Any]] = [(row.get("step"), row.get(key)) for row in steps]
    drawn = [(float(x), float(y)) for x, y in points if _is_number(x) and _is_number(y)]
    if not drawn:
        return None
    figure, axes = panel(height=height, left=46, bottom=36)
    xs, ys = [x for x, _ in drawn], [y for _, y in drawn]
    _line(axes, xs, ys, COLOUR[role])
    if level:
        axes.axhline(level[0], **DASHED)
        write(axes, level[1], (1, level[0]), offset=(0, 3), ha="right", xycoords=("axes fraction", "data"))
    axes.set_xlabel("step", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if share:
        axes.set(ylim=(-0.03, 1.03), yticks=(0, 0.5, 1))
    return chart_of(figure, title, caption, f"from {short(ys[0])} to {short(ys[-1])} in {len(ys)} steps")


def _line(axes: Axes, xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
    """Draw points joined by a line; if there are many, draw them small, with their moving mean on top."""
    many = len(xs) > 12
    size, alpha = (2.5, 0.4) if many else (4.5, 1.0)
    axes.plot(xs, ys, "o-", color=colour, linewidth=1, markersize=size, markeredgewidth=0, alpha=alpha)
    if many:
        axes.plot(xs, _smooth(ys), color=colour, linewidth=2.2)


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the mean over a window of a fifth of the steps."""
    half = max(1, len(values) // 10)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def histogram(title: str, caption: str, values: Sequence[float], bins: int = 20) -> Chart | None:
    """Draw the number of values in equal bins of [0, 1], or return None if there are none."""
    if not values:
        return None
    figure, axes = panel(height=170, left=36, bottom=36)
    counts = axes.hist(values, bins, range=(0, 1), rwidth=0.84, color=COLOUR[layout.SL_CAI])[0]
    axes.axvline(0.5, **DASHED)
    axes.set_xlim(0, 1)
    axes.set_xlabel("P(answer A is better)", color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    description = f"{len(values)} labels, by twentieths from 0 to 1: {[int(count) for count in counts]}"
    return chart_of(figure, title, caption, description)


def reliability(title: str, caption: str, bins: Sequence[Bin]) -> Chart | None:
    """Draw stated probabilities against observed frequencies, or return None if nothing was measured.

    Bins start at 0.5 if probabilities are of the model's choice, and at 0 if they are of answer A.
    """
    points = [
        (b.claimed, b.observed.value, b.observed)
        for b in bins
        if b.claimed is not None and b.observed.value is not None
    ]
    if not points:
        return None
    figure, axes = panel(height=230, left=46, bottom=36)
    least = bins[0].low
    axes.plot([least, 1], [least, 1], **DASHED)
    xs, ys, colour = [x for x, _, _ in points], [y for _, y, _ in points], COLOUR[layout.SL_CAI]
    bars = whiskers([(y, m.low, m.high) for _, y, m in points])
    axes.errorbar(xs, ys, yerr=bars, fmt="none", ecolor=colour, elinewidth=2.4, alpha=0.55)
    axes.plot(xs, ys, "o", color=colour, markersize=7)
    for claimed, value, metric in points:
        write(axes, str(metric.count), (claimed, value), offset=(7, -11))
    axes.set(xlim=(least - 0.04 * (1 - least), 1 + 0.1 * (1 - least)), ylim=(-0.03, 1.03))
    choice = least >= 0.5  # otherwise of answer A
    axes.set_xlabel("P(its choice is better)" if choice else "P(answer A is better)", color=INK)
    axes.set_ylabel("how often the label agrees" if choice else "how often A is better", color=INK)
    description = "; ".join(f"probability {short(x)}, frequency {short(y)} of {m.count}" for x, y, m in points)
    return chart_of(figure, title, caption, description)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
