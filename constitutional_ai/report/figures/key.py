"""The key: every line's name to the right of the panels, as near to the height of its end as the others let it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from constitutional_ai.report.figures import style

ROW, SAMPLE, BEFORE = 0.185, 0.3, 0.12
"""Inches: from one name to the next, a line's sample, and the room before it."""
POINTS = 8.5


class Entry(NamedTuple):
    name: str
    colour: str
    marker: str
    dot: Mapping[str, Any]
    """How the marker is filled and edged."""
    dashes: Any
    """Of its line; "none" where no line is drawn."""
    height: float
    """Where the line ends in its panel, from 0 to 1."""


def column(entries: int) -> float:
    """Inches that so many names take."""
    return entries * ROW


def width_of(names: Sequence[str]) -> float:
    """Inches that the key takes."""
    return BEFORE + SAMPLE + 0.07 + max(map(_length, names), default=0.0)


def _length(text: str) -> float:
    return float(TextToPath().get_text_width_height_descent(text, FontProperties(size=POINTS), False)[0]) / 72


def draw_key(figure: Figure, beside: Axes, entries: Sequence[Entry], left: float) -> None:
    """``left`` is in inches. The names are as high as ``beside`` is."""
    width, height = figure.get_size_inches()
    box = beside.get_position()
    column = figure.add_axes((left / width, box.y0, 1 - left / width, box.height))
    column.set_axis_off()
    high = box.height * height
    column.set(xlim=(0, width - left), ylim=(0, high))
    ordered = sorted(entries, key=lambda e: -e.height)
    places = spread([e.height * high for e in ordered], ROW, high)
    for entry, y in zip(ordered, places, strict=True):
        start, end = BEFORE, BEFORE + SAMPLE
        how: Any = {"color": entry.colour, "clip_on": False}
        column.plot([start, end], [y, y], linestyle=entry.dashes, linewidth=1.7, **how)
        column.plot((start + end) / 2, y, entry.marker, markersize=5.5, **{**how, **entry.dot})
        colour = style.SOFT if entry.colour in style.GREYS else style.INK
        column.text(end + 0.07, y, style.short(entry.name), fontsize=POINTS, va="center", color=colour)


def spread(wanted: Sequence[float], apart: float, top: float) -> list[float]:
    """Heights no nearer to each other than ``apart``, in the order from above, within 0 and ``top`` where they fit.

    >>> spread([1.0, 1.0, 0.0], 0.5, 2.0)
    [1.0, 0.5, 0.0]
    """
    placed: list[float] = []
    ceiling = top
    for number, y in enumerate(wanted):
        room = (len(wanted) - 1 - number) * apart  # that the names below need
        placed.append(min(max(y, room), ceiling))
        ceiling = placed[-1] - apart
    return placed
