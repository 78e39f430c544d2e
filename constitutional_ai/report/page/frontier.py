"""The frontier of helpfulness against harmlessness, over the models and RL's snapshots in their order (figure 2).

On the left what a model does: how much of what is harmless it answers, and how often it objects to what is not. On the
right, where ``cai evaluate`` played matches, its two Elo scores (EV-8 to EV-10).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from string import ascii_uppercase
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from constitutional_ai.metrics.intervals import rate
from constitutional_ai.records import Candidate, Metric
from constitutional_ai.report.contents import Contents
from constitutional_ai.report.drawing import (
    COLOUR,
    INK,
    LABEL,
    MARKER,
    RULE,
    Chart,
    panel,
    short,
    svg_of,
    write,
)
from constitutional_ai.report.page.charts import span_of
from constitutional_ai.runs import layout

OTHER = "other"
ANSWERED = "answered_rate"
ELO = ("elo.helpfulness", "elo.harmlessness")
WIDE, HEIGHT, LEFT, BOTTOM = 416, 360, 56, 42
SIZE, LETTERS = 12, (12.0, 7.2)
"""Of a label, in points: its size, and the height and mean width of its letters."""
AROUND = (
    (7, 5, "left"),
    (7, -13, "left"),
    (-7, 5, "right"),
    (-7, -13, "right"),
    (0, 10, "center"),
    (0, -18, "center"),
)
"""Where a label may stand: its offset from the point, in points, and how it is aligned."""


class Point(NamedTuple):
    label: str
    """The model's name, which may be a stranger's: for the table."""
    mark: str
    """What stands beside it in the drawing: always our own words, a number of prompts, or a letter."""
    role: str
    """start, sl-cai, rl-cai or other."""
    run: str
    """Points of one run are joined."""
    seen: float
    """Prompts that RL had seen: 0 where it begins, and infinity where it ended."""
    helpful: Metric
    harmless: Metric

    @property
    def is_snapshot(self) -> bool:
        return self.role == layout.RL_CAI and self.seen < math.inf


class Frontier(NamedTuple):
    chart: Chart
    points: list[Point]
    axes: tuple[str, str]
    """What is measured along, and up."""


def frontier(contents: Contents) -> Frontier | None:
    """What each model of the run does with prompts that no training saw. None before they are measured."""
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
    named = ("harmless prompts answered", "red-team prompts objected to")
    return _drawn(
        "What they do", "Up and to the right is better. Crosses: 95 % intervals.", points, named, (0, 1)
    )


def elo_frontier(contents: Contents) -> Frontier | None:
    """None where no matches were played on both."""
    found = {(m.name, m.model): m for m in contents.evaluated}
    both = [
        _point(candidate, *[found[name, candidate.label] for name in ELO])
        for candidate in contents.candidates
        if all((name, candidate.label) in found for name in ELO)
    ]
    named = ("helpfulness, Elo", "harmlessness, Elo")
    return _drawn("Who wins", "Elo from matches; only differences mean anything.", both, named)


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
    says: str,
    points: Sequence[Point],
    named: tuple[str, str],
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Frontier | None:
    measured = [p for p in _marked(points) if _is(p.helpful) and _is(p.harmless)]
    if not measured:
        return None
    figure, axes = panel(wide=WIDE, height=HEIGHT, left=LEFT, bottom=BOTTOM)
    axes.set(
        xlim=_span([p.helpful for p in measured], within), ylim=_span([p.harmless for p in measured], within)
    )
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_xlabel(f"{named[0]} →", color=INK)
    axes.set_ylabel(f"{named[1]} →", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for run in dict.fromkeys(p.run for p in measured):
        _path(axes, [p for p in measured if p.run == run])
    for point in measured:
        _cross(axes, point)
    _label(axes, measured)
    told = "; ".join(
        f"{p.mark}: {short(p.helpful.value or 0)} along, {short(p.harmless.value or 0)} up" for p in measured
    )
    return Frontier(Chart(title, says, svg_of(figure, title, told)), list(_marked(points)), named)


def _marked(points: Iterable[Point]) -> Iterator[Point]:
    """With a letter for what is no model of ours. Snapshots stand between where RL began and where it ended."""
    order = (layout.START, layout.SL_CAI, layout.RL_CAI, OTHER)
    letters = iter([*ascii_uppercase, *(a + b for a in ascii_uppercase for b in ascii_uppercase)])
    for point in sorted(points, key=lambda p: (p.role == OTHER, p.run, order.index(p.role), p.seen)):
        yield point if point.mark else point._replace(mark=next(letters, "…"))


def _is(metric: Metric) -> bool:
    return metric.value is not None and math.isfinite(metric.value)


def _span(metrics: Sequence[Metric], within: tuple[float, float]) -> tuple[float, float]:
    low, high = span_of(metrics)
    return max(low, within[0] - 0.04), min(high, within[1] + 0.04)


def _path(axes: Axes, points: Sequence[Point]) -> None:
    """From SL-CAI, where RL begins, over its snapshots to RL-CAI."""
    way = [p for p in points if p.role in (layout.SL_CAI, layout.RL_CAI)]
    axes.plot(*_at(way), color=COLOUR[layout.RL_CAI], linewidth=1.4, alpha=0.75)


def _cross(axes: Axes, point: Point) -> None:
    (x, *_), (y, *_) = _at([point])
    colour, size = COLOUR.get(point.role, INK), 4.5 if point.is_snapshot else 8
    faint = 0.35 if point.is_snapshot else 0.55
    for metric, along in ((point.helpful, True), (point.harmless, False)):
        if metric.low is not None and metric.high is not None:
            ends, still = [metric.low, metric.high], [y if along else x] * 2
            axes.plot(*((ends, still) if along else (still, ends)), color=colour, linewidth=1.8, alpha=faint)
    axes.plot([x], [y], MARKER.get(point.role, "^"), color=colour, markersize=size, zorder=5)


def _at(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p.helpful.value or 0.0 for p in points], [p.harmless.value or 0.0 for p in points]


class _Box(NamedTuple):
    left: float
    low: float
    right: float
    high: float

    def meets(self, other: _Box) -> bool:
        apart = (
            self.right < other.left or other.right < self.left or self.high < other.low or other.high < self.low
        )
        return not apart


def _label(axes: Axes, points: Sequence[Point]) -> None:
    """Each label where it hides nothing; a snapshot's is left out where there is no such place."""
    scale = 72 / axes.figure.dpi
    at = [
        tuple(scale * axes.transData.transform((p.helpful.value or 0.0, p.harmless.value or 0.0)))
        for p in points
    ]
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    frame = _Box(LEFT, BOTTOM, WIDE, HEIGHT)
    for n in sorted(range(len(points)), key=lambda i: points[i].is_snapshot):
        point, (x, y) = points[n], at[n]
        places = [(_box(point.mark, x + dx, y + dy, ha), (dx, dy), ha) for dx, dy, ha in AROUND]
        free = [p for p in places if _inside(p[0], frame) and not any(p[0].meets(t) for t in taken)]
        if free or not point.is_snapshot:
            box, offset, side = (free or places)[0]
            taken.append(box)
            write(
                axes,
                point.mark,
                (point.helpful.value or 0.0, point.harmless.value or 0.0),
                offset,
                SIZE,
                ha=side,
            )


def _box(text: str, x: float, y: float, side: str) -> _Box:
    height, width = LETTERS[0], LETTERS[1] * len(text)
    left = x - {"left": 0.0, "right": width, "center": width / 2}[side]
    return _Box(left, y, left + width, y + height)


def _inside(box: _Box, frame: _Box) -> bool:
    return (
        box.left >= frame.left and box.right <= frame.right and box.low >= frame.low and box.high <= frame.high
    )
