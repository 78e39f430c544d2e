"""Which colour, marker and dashes stand for which series: the same in all panels of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from constitutional_ai.report.figures import style
from constitutional_ai.report.figures.figure import PaperFigure, Series


class Look(NamedTuple):
    colour: str
    marker: str
    dashes: Any
    hollow: bool

    @property
    def dot(self) -> dict[str, Any]:
        """Of a marker: what is dashed is hollow too, as a single point has no line to be dashed."""
        edge = {"markeredgecolor": self.colour, "markeredgewidth": 1.2, "markerfacecolor": "white"}
        return edge if self.hollow else {"markeredgecolor": "white", "markeredgewidth": 0.7}


def looks_of(figure: PaperFigure) -> dict[str, Look]:
    """By the name of the series, in the order of first appearance."""
    series = list({s.name: s for panel in figure.panels for s in panel.series}.values())
    measured = _measured([s for s in series if s.source == "measured"])
    return measured | _papers([s for s in series if s.source == "paper"])


def _measured(series: Sequence[Series]) -> dict[str, Look]:
    colours = list(dict.fromkeys(s.colour or s.name for s in series))
    markers = list(dict.fromkeys(s.marker or s.colour or s.name for s in series))
    looks = {}
    for one in series:
        colour = colours.index(one.colour or one.name)
        marker = markers.index(one.marker or one.colour or one.name)
        # The second time round, no marker falls on the colour that it had.
        marker += 0 if one.marker else colour // len(style.COLOURS)
        dashes = style.DASHES if one.dashed else "-"
        looks[one.name] = Look(_of(style.COLOURS, colour), _of(style.MARKERS, marker), dashes, one.dashed)
    return looks


def _papers(series: Sequence[Series]) -> dict[str, Look]:
    greys = list(dict.fromkeys(s.colour or s.name for s in series))
    looks = {}
    for one in series:
        at = greys.index(one.colour or one.name)
        # Greys are hard to tell apart: so each has dashes of its own, unless dashes mean something.
        dashes = _of(style.PAPER_DASHES, at) if one.colour is None else style.DASHES if one.dashed else "-"
        looks[one.name] = Look(_of(style.GREYS, at), _of(style.MARKERS, at), dashes, one.dashed)
    return looks


def _of(things: Sequence[Any], at: int) -> Any:
    return things[at % len(things)]
