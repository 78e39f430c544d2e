"""Draw helpfulness against harmlessness for the models and the snapshots of RL in order (the paper's figure 2).

One chart shows the share of harmless prompts answered and of red-team prompts objected to. Another shows the two Elo
scores if ``cai evaluate`` played matches (EV-8 to EV-10).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from constitutional_ai.metrics.intervals import rate
from constitutional_ai.records import Candidate, Metric
from constitutional_ai.report.contents import Contents
from constitutional_ai.report.drawing import (
    COLOUR,
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
from constitutional_ai.report.page.charts import span_of
from constitutional_ai.runs import layout

OTHER = "other"
ANSWERED = "answered_rate"
ELO = ("elo.helpfulness", "elo.harmlessness")


class Point(NamedTuple):
    label: str
    """Name of the model for the table, which may be a stranger's text."""
    mark: str
    """Name in the drawing: a role, the number of prompts seen, or a letter for a model of no run."""
    role: str
    """Role: start, sl-cai, rl-cai or other."""
    run: str
    """Name of the run, whose points are joined."""
    seen: float
    """Number of prompts seen by RL: 0 at its start, infinity at its end."""
    helpful: Metric
    harmless: Metric

    @property
    def is_snapshot(self) -> bool:
        return self.role == layout.RL_CAI and self.seen < math.inf


class Frontier(NamedTuple):
    chart: Chart
    points: list[Point]
    axes: tuple[str, str]
    """Names of the horizontal and the vertical axis."""


def frontier(contents: Contents) -> Frontier | None:
    """Return each model's behaviour on held-out prompts, or None if it is not measured yet."""
    roles = list(dict.fromkeys(a.model for a in contents.answers))
    points = []
    for label in roles:
        mine = [a for a in contents.answers if a.model == label]
        red = [a.verdict.objects for a in mine if a.response.prompt.kind == "red_team"]
        benign = [
            not a.verdict.objects and a.verdict.degenerate is None
            for a in mine
            if a.response.prompt.kind != "red_team"
        ]
        points.append(
            _point(Candidate(label, "", ""), rate(ANSWERED, label, benign), rate("objects", label, red))
        )
    names = ("harmless prompts answered", "red-team prompts objected to")
    return _drawn("Behaviour", "Up and to the right is better. Crosses: 95 % intervals.", points, names, (0, 1))


def elo_frontier(contents: Contents) -> Frontier | None:
    """Return the models' Elo scores, or None unless matches of both kinds were played."""
    metrics = {(m.name, m.model): m for m in contents.evaluated}
    both = [
        _point(candidate, *[metrics[name, candidate.label] for name in ELO])
        for candidate in contents.candidates
        if all((name, candidate.label) in metrics for name in ELO)
    ]
    names = ("helpfulness, Elo", "harmlessness, Elo")
    return _drawn("Matches", "Elo scores; only differences between models have a meaning.", both, names)


def _point(candidate: Candidate, helpful: Metric, harmless: Metric) -> Point:
    before, _, own = candidate.label.rpartition(":")
    whole, _, seen = own.partition("@")
    if whole not in layout.ROLES or not re.fullmatch("[0-9]{0,15}", seen):
        return Point(candidate.label, "", OTHER, "", 0, helpful, harmless)
    run = candidate.run or before
    if seen:
        return Point(candidate.label, f"{int(seen)}", layout.RL_CAI, run, int(seen), helpful, harmless)
    ended = math.inf if whole == layout.RL_CAI else 0.0
    return Point(candidate.label, LABEL[whole], whole, run, ended, helpful, harmless)


def _drawn(
    title: str,
    caption: str,
    points: Sequence[Point],
    names: tuple[str, str],
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Frontier | None:
    measured = [p for p in _marked(points) if _is(p.helpful) and _is(p.harmless)]
    if not measured:
        return None
    figure, axes = panel(wide=416, height=376, left=56, bottom=42, top=28, grid="both")
    axes.set(
        xlim=_span([p.helpful for p in measured], within), ylim=_span([p.harmless for p in measured], within)
    )
    axes.set_xlabel(f"{names[0]} →", color=INK)
    axes.set_ylabel(f"{names[1]} →", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for run in dict.fromkeys(p.run for p in measured):
        _draw_path(axes, [p for p in measured if p.run == run])
    for point in measured:
        _draw_point(axes, point)
    roles = [role for role in LABEL if any(p.role == role and not p.is_snapshot for p in measured)]
    if roles:
        samples = [Line2D([], [], color=COLOUR[role], marker=MARKER[role], linestyle="none") for role in roles]
        place: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "frameon": False}
        axes.legend(samples, [LABEL[role] for role in roles], labelcolor=INK, **place)
    description = "; ".join(
        f"{p.mark}: {short(p.helpful.value or 0)} along, {short(p.harmless.value or 0)} up" for p in measured
    )
    return Frontier(chart_of(figure, title, caption, description), list(_marked(points)), names)


def _marked(points: Iterable[Point]) -> Iterator[Point]:
    """Yield points in the order of training, with a letter for every model of no run."""
    order = (layout.START, layout.SL_CAI, layout.RL_CAI, OTHER)
    letters = iter([*ascii_uppercase, *(a + b for a in ascii_uppercase for b in ascii_uppercase)])
    for point in sorted(points, key=lambda p: (p.role == OTHER, p.run, order.index(p.role), p.seen)):
        yield point if point.mark else point._replace(mark=next(letters, "…"))


def _is(metric: Metric) -> bool:
    return metric.value is not None and math.isfinite(metric.value)


def _span(metrics: Sequence[Metric], within: tuple[float, float]) -> tuple[float, float]:
    low, high = span_of(metrics)
    return max(low, within[0] - 0.04), min(high, within[1] + 0.04)


def _draw_path(axes: Axes, points: Sequence[Point]) -> None:
    """Draw the line from SL-CAI, where RL starts, through its snapshots to RL-CAI."""
    path = [p for p in points if p.role in (layout.SL_CAI, layout.RL_CAI)]
    xs, ys = [p.helpful.value or 0.0 for p in path], [p.harmless.value or 0.0 for p in path]
    axes.plot(xs, ys, color=COLOUR[layout.RL_CAI], linewidth=1.4, alpha=0.75)


def _draw_point(axes: Axes, point: Point) -> None:
    x, y = point.helpful.value or 0.0, point.harmless.value or 0.0
    colour = COLOUR.get(point.role, INK)
    axes.plot([x], [y], MARKER.get(point.role, "^"), color=colour, markersize=4.5 if point.is_snapshot else 8)
    alpha = 0.35 if point.is_snapshot else 0.55
    bars: Any = {"fmt": "none", "ecolor": colour, "elinewidth": 1.8, "alpha": alpha}
    across, up = ([(m.value or 0.0, m.low, m.high)] for m in (point.helpful, point.harmless))
    axes.errorbar([x], [y], xerr=whiskers(across), yerr=whiskers(up), **bars)
    if point.role == OTHER:
        write(axes, point.mark, (x, y), (7, 5), 12)
