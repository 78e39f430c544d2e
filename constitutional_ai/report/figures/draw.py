"""A figure's data as a drawing: SVG with text that can be searched, and PNG. The same data give the same bytes.

Drawn without pyplot, so without global state, and without the user's own matplotlib settings.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from constitutional_ai.report.figures import style
from constitutional_ai.report.figures.figure import PaperFigure, Series
from constitutional_ai.report.figures.key import Entry, column, draw_key, width_of
from constitutional_ai.report.figures.looks import Look, looks_of
from constitutional_ai.report.figures.panel import draw_panel
from constitutional_ai.report.figures.scales import in_the_paper

# Inches.
LEFT, GAP, TOP, BOTTOM, RIGHT = 0.72, 0.82, 0.36, 0.5, 0.12
NOTE, PAPER_AXIS = 0.155, 0.38
SIZES = {1: (4.1, 3.1), 2: (3.0, 2.6), 3: (2.45, 2.3)}
"""Width and height of a panel, by how many there are."""


class Drawing(NamedTuple):
    svg: bytes
    png: bytes


def draw(figure: PaperFigure) -> Drawing:
    with styled():
        made = laid_out(figure)
        return Drawing(
            _saved(made, "svg", dict.fromkeys(("Date", "Creator", "Format", "Type"))),
            _saved(made, "png", {"Software": None}),
        )


@contextmanager
def styled() -> Iterator[None]:
    """Our own rules, and no one else's."""
    with matplotlib.style.context(["default", style.RULES]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name in another script
        yield


def _saved(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, metadata=metadata, facecolor="white")
    return out.getvalue()


def laid_out(figure: PaperFigure) -> Figure:
    """The drawing, made while ``styled``: the panels side by side, the key beside them, notes below."""
    looks, count = looks_of(figure), len(figure.panels)
    wide, high = SIZES.get(count, SIZES[3])
    high, key = max(high, column(len(looks))), width_of([style.short(name) for name in looks])
    width = LEFT + count * wide + (count - 1) * GAP + key + RIGHT
    notes = [line for note in figure.notes for line in _wrapped(note, width)]
    below = BOTTOM + NOTE * len(notes) + 0.08
    height = _above(figure) + high + below
    drawn = Figure(figsize=(width, height))
    FigureCanvasAgg(drawn)
    axes: list[Axes] = []
    for number, panel in enumerate(figure.panels):
        left = LEFT + number * (wide + GAP)
        axes.append(drawn.add_axes((left / width, below / height, wide / width, high / height)))
        draw_panel(axes[-1], panel, looks)
    draw_key(drawn, axes[-1], _entries(figure, looks, axes), left=width - key - RIGHT)
    for number, line in enumerate(reversed(notes)):
        at = (LEFT - 0.55) / width, (0.08 + NOTE * number) / height
        drawn.text(*at, line, fontsize=7.5, color=style.SOFT, va="bottom")
    return drawn


def _above(figure: PaperFigure) -> float:
    """Inches for titles, and for an axis of the paper's."""
    titles = TOP if any(panel.title for panel in figure.panels) else 0.15
    return titles + (PAPER_AXIS if any(in_the_paper(panel) != 1 for panel in figure.panels) else 0)


def _wrapped(note: str, width: float) -> list[str]:
    return textwrap.wrap(" ".join(note.split()), max(40, int(width * 72 / 4.3)))


def _entries(figure: PaperFigure, looks: dict[str, Look], axes: Sequence[Axes]) -> list[Entry]:
    """The key's rows, each as high as its line ends in the last panel where it is drawn.

    Where lines end anywhere, as in figure 2, the rows stand from the top in their order.
    """
    heights: dict[str, float] = {}
    for panel, drawn in zip(figure.panels, axes, strict=True):
        for series in panel.series:
            if series.points and panel.x_scale != "plain":
                last = max(series.points, key=lambda p: float("inf") if p.x is None else p.x)
                there = drawn.transData.transform((1, last.y - panel.zero))
                heights[series.name] = float(drawn.transAxes.inverted().transform(there)[1])
    named = {s.name: s for panel in figure.panels for s in panel.series}
    return [_entry(named[name], look, heights.get(name, 1.0)) for name, look in looks.items()]


def _entry(series: Series, look: Look, height: float) -> Entry:
    if all(point.x is None for point in series.points):
        return Entry(series.name, look.colour, "", {}, style.LEVEL, height)
    lined = series.joined and len(series.drawn) > 1
    return Entry(series.name, look.colour, look.marker, look.dot, look.dashes if lined else "none", height)
