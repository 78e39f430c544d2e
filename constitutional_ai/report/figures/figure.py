"""A figure as data: panels of series of points. The CSV holds every number of it, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Source = Literal["measured", "paper"]


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: a point, with its 95 % interval."""

    x: float | None
    """None if it has no place on this axis, such as a model of unknown size: it is drawn as a level line."""
    y: float
    low: float | None = None
    """Lower end of the 95 % interval of y; None if there is no interval."""
    high: float | None = None
    x_low: float | None = None
    x_high: float | None = None
    count: int | None = None
    """Number of items that y is a mean of."""
    model: str = ""
    """Label of the model, or of the run, that was measured."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points that a line joins, in order."""

    name: str
    """Its name in the legend. A name has one colour in all panels of a figure."""
    points: tuple[Point, ...]
    source: Source = "measured"
    dashed: bool = False
    colour: str | None = None
    """Series with the same value, such as a run's name, share one colour; None: a colour of its own."""
    marker: str | None = None
    """Series with the same value, such as a role, share one marker; None: the same as for its colour."""
    after: Point | None = None
    """A point of another series at which this line starts."""

    @property
    def drawn(self) -> tuple[Point, ...]:
        """The points that its line joins."""
        return (self.after, *self.points) if self.after else self.points


@dataclass(frozen=True, slots=True)
class Panel:
    """Series on one pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: Literal["plain", "rounds", "counts", "sequences", "parameters"] = "plain"
    errors: Literal["bars", "band"] = "bars"
    level: tuple[float, str] | None = None
    """Height and name of a dashed line to compare with."""
    diagonal: bool = False
    """Whether to draw the dashed line y = x."""
    arrows: bool = False
    """Whether arrows show the direction of lines."""
    counts: bool = False
    """Whether to write its count beside every point."""
    zero: float = 0.0
    """Subtracted from y in the drawing, so that one point lies at 0 (PM-6)."""
    span: tuple[float, float] | None = None
    """Limits of both axes; None: those of the points."""


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """The data of one of the paper's figures."""

    number: int
    """Its number in the paper."""
    panels: tuple[Panel, ...]
    notes: tuple[str, ...]
    """Lines of text below the panels."""

    def points(self) -> Iterator[tuple[Panel, Series, Point]]:
        for panel in self.panels:
            for series in panel.series:
                for point in series.points:
                    yield panel, series, point
