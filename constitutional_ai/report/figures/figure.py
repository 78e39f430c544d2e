"""Define a figure as data: panels of series of points. The CSV contains all its numbers, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from constitutional_ai.safe_text import csv_text, visible

SHARES = (-0.03, 1.03)
"""Limits of an axis of probabilities or rates."""
COLUMNS = (
    "figure", "panel", "series", "source", "model", "x", "x_low", "x_high", "y", "low", "high", "zero", "count",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """A measurement with its 95 % interval."""

    x: float | None
    """Position; None if it is unknown, such as a model's size: the point is then drawn as a horizontal line."""
    y: float
    low: float | None = None
    """Lower end of the 95 % interval of y; None if there is no interval."""
    high: float | None = None
    x_low: float | None = None
    x_high: float | None = None
    count: int | None = None
    """Number of items that y is a mean of."""
    model: str = ""
    """Label of the measured model or run."""
    note: str = ""
    """Text to write beside it."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points in order, joined by a line."""

    name: str
    """Name in the legend, with the same colour in all panels of a figure."""
    points: tuple[Point, ...]
    source: Literal["measured", "paper"] = "measured"
    dashed: bool = False
    faint: bool = False
    """Whether it is only the background of another series, such as of its moving mean."""
    colour: str | None = None
    """Series with the same value, such as a run's name, share a colour; None gives it its own colour."""
    marker: str | None = None
    """Series with the same value, such as a role, share a marker; None gives it the marker of its colour."""
    after: Point | None = None
    """The point of another series at which this line starts."""

    @property
    def drawn(self) -> tuple[Point, ...]:
        """The points that the line joins."""
        return (self.after, *self.points) if self.after else self.points


@dataclass(frozen=True, slots=True)
class Panel:
    """Series on one pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: Literal["plain", "rounds", "counts", "sequences", "parameters", "names"] = "plain"
    names: tuple[str, ...] = ()
    """Names of the places 1, 2 and so on of the x axis "names", on which no line joins the points."""
    errors: Literal["bars", "band"] = "bars"
    level: tuple[float, str] | None = None
    """Height and name of a dashed reference line."""
    diagonal: bool = False
    """Whether to draw the dashed line y = x."""
    arrows: bool = False
    """Whether arrows show the direction of lines."""
    zero: float = 0.0
    """Value that is subtracted from y in the drawing, so that one point is at 0 (PM-6)."""
    x_span: tuple[float, float] | None = None
    """Limits of the axis; None uses those of the points."""
    y_span: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """The data of one of the paper's figures."""

    number: int
    """Number of the figure in the paper."""
    panels: tuple[Panel, ...]
    notes: tuple[str, ...]
    """Lines of text below the panels."""
    left_out: tuple[str, ...] = ()
    """Sentences that name what is not drawn, and why; they are among the notes."""

    def points(self) -> Iterator[tuple[Panel, Series, Point]]:
        for panel in self.panels:
            for series in panel.series:
                for point in series.points:
                    yield panel, series, point


# -- text


def as_csv(figure: PaperFigure) -> str:
    """Return the CSV text. An empty cell means no number; the drawn value is ``y`` minus ``zero``."""
    rows: list[tuple[object, ...]] = [COLUMNS]
    for panel, series, point in figure.points():
        place = (point.x, point.x_low, point.x_high, point.y, point.low, point.high, panel.zero)
        names = (panel.title, series.name, series.source, point.model)
        rows.append((figure.number, *names, *place, point.count))
    return csv_text(rows)


def short(text: str, longest: int = 34) -> str:
    """Return a name as one safe line. The middle of a long name is cut, because names often differ at an end.

    >>> short("a-very-long-name-of-a-model-at-its-end-7b: SL-CAI", 24)
    'a-very-long-…-7b: SL-CAI'
    """
    line = " ".join(visible(text).split())
    head = longest // 2
    return line if len(line) <= longest else f"{line[:head]}…{line[head + 1 - longest :]}"


def in_units(number: float) -> str:
    """Return a count with at most three digits and a unit.

    >>> [in_units(n) for n in (64, 2500, 134_515_008, 1.6e9, 52e9)]
    ['64', '2.5k', '135M', '1.6B', '52B']
    """
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            scaled = number / size
            return f"{scaled:.0f}{unit}" if scaled >= 99.5 else f"{scaled:.3g}{unit}"
    return f"{number:.3g}"
