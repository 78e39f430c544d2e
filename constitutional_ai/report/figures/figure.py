"""What a figure is: panels of series of points. Every number that is drawn is here, and goes to the CSV as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Source = Literal["measured", "paper"]


@dataclass(frozen=True, slots=True)
class Point:
    x: float | None
    """None where it has no place on this axis, as a model of unknown size: it is then a level across the panel."""
    y: float
    low: float | None = None
    """Lower end of the 95 % interval of y; None where there is none."""
    high: float | None = None
    x_low: float | None = None
    x_high: float | None = None
    count: int | None = None
    """How many items y is a mean over."""
    model: str = ""
    """What was measured: a model's label, a run's, or a bin."""


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    """As it stands in the key. A name has one colour in all panels of a figure."""
    points: tuple[Point, ...]
    source: Source = "measured"
    dashed: bool = False
    colour: str | None = None
    """What it shares its colour for, as a run or a way of asking; None: a colour of its own."""
    marker: str | None = None
    """What it shares its marker for, as SL-CAI; None: as its colour."""
    after: Point | None = None
    """A point of another series that this one's line begins at."""

    @property
    def drawn(self) -> tuple[Point, ...]:
        """The points of its line."""
        return (self.after, *self.points) if self.after else self.points


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: Literal["plain", "rounds", "counts", "sequences", "parameters"] = "plain"
    errors: Literal["bars", "band"] = "bars"
    level: tuple[float, str] | None = None
    """A dashed line to compare with, and its name."""
    diagonal: bool = False
    """Whether the dashed line is y = x."""
    arrows: bool = False
    """Whether the direction of a line is marked."""
    counts: bool = False
    """Whether every point is marked with its count."""
    zero: float = 0.0
    """What is taken off y to be shown, so that some point lies at 0 (PM-6)."""
    span: tuple[float, float] | None = None
    """Of both axes; None: as far as the points go."""


@dataclass(frozen=True, slots=True)
class PaperFigure:
    number: int
    """In the paper."""
    panels: tuple[Panel, ...]
    notes: tuple[str, ...]
    """Stand under the panels."""

    def points(self) -> Iterator[tuple[Panel, Series, Point]]:
        for panel in self.panels:
            for series in panel.series:
                for point in series.points:
                    yield panel, series, point
