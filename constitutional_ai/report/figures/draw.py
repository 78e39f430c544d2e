"""Draw a figure's data with matplotlib, as SVG with text that can be searched, and as PNG.

The same data give the same bytes: pyplot, with its global state, is not used, and the user's settings are ignored.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from constitutional_ai.report.figures.figure import Panel, PaperFigure, Point, Series, in_units, short

SIZES = {1: (5.0, 3.7), 2: (3.8, 3.3), 3: (3.2, 2.9)}
"""Width of a panel with its axis labels in inches, by number of panels."""
INK, SOFT, GRID = "#1a1a1a", "#5f6368", "#e4e6e8"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#404040")
GREYS = ("#70757a", "#868b90", "#9aa0a6", "#adb2b7")
"""Colours of the paper's numbers."""
MARKERS = ("o", "s", "D", "^", "v", "p", "h", "P")
"""One more than colours, so that a colour that comes again has another marker."""
DASHES = (0, (4, 2))
LEVEL = (0, (1.5, 2))
UNDATED = dict.fromkeys(("Date", "Creator", "Format", "Type"))
"""Metadata that SVG files must not have, because it would differ each time."""

RULES: dict[str, Any] = {
    "svg.fonttype": "none",  # text that can be searched
    "text.parse_math": False,  # dollar signs in names are no formulas
    "svg.hashsalt": "cai",  # ids derive from it, so that the same figure has the same bytes
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GREYS[2],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.xmargin": 0.07,
    "axes.ymargin": 0.07,
    "grid.color": GRID,
    "axes.labelcolor": INK,
    "xtick.color": GREYS[2],
    "ytick.color": GREYS[2],
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.7,
    "lines.markersize": 6,
    "savefig.dpi": 200,
}
ARROW: dict[str, Any] = {"arrowstyle": "-|>,head_width=0.25,head_length=0.5", "linewidth": 0, "shrinkB": 0}
SMALL: dict[str, Any] = {"fontsize": 7.5, "color": SOFT}


def draw(figure: PaperFigure) -> dict[str, bytes]:
    """Return the figure as ``svg`` and ``png``."""
    files = {}
    with styled():
        drawn = laid_out(figure)
        for kind, metadata in (("svg", UNDATED), ("png", {"Software": None})):
            out = io.BytesIO()
            drawn.savefig(out, format=kind, metadata=metadata, facecolor="white")
            files[kind] = out.getvalue()
    return files


@contextmanager
def styled() -> Iterator[None]:
    """Use only our matplotlib settings within the block."""
    with matplotlib.style.context(["default", RULES]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name in another script
        yield


def laid_out(figure: PaperFigure) -> Figure:
    """Return the panels side by side, a legend to their right and the notes below. Call it within ``styled``."""
    looks = looks_of([series for panel in figure.panels for series in panel.series])
    wide, high = SIZES.get(len(figure.panels), SIZES[3])
    width = wide * len(figure.panels) + 0.6 + 0.075 * max(len(short(name)) for name in looks)
    notes = "\n".join(line for note in figure.notes for line in textwrap.wrap(note, int(16 * width)))
    height = max(high, 0.2 * len(looks) + 0.5) + 0.16 * notes.count("\n")
    drawn = Figure(figsize=(width, height), layout="constrained")
    lines: dict[str, Line2D] = {}
    for axes, panel in zip(drawn.subplots(1, len(figure.panels), squeeze=False)[0], figure.panels, strict=True):
        lines |= draw_panel(axes, panel, looks)
    drawn.legend([lines[name] for name in looks], [short(name) for name in looks], loc="outside right upper")
    drawn.supxlabel(notes, x=0.01, ha="left", linespacing=1.5, **SMALL)
    return drawn


def looks_of(series: Sequence[Series]) -> dict[str, dict[str, Any]]:
    """Return matplotlib's line properties for every series of a figure by its name, the same in all its panels."""
    looks = {}
    for source, colours in (("measured", COLOURS), ("paper", GREYS)):
        own = [one for one in series if one.source == source]
        hues = list(dict.fromkeys(one.colour or one.name for one in own))
        marks = list(dict.fromkeys(one.marker or one.colour or one.name for one in own))
        for one in own:
            colour = colours[hues.index(one.colour or one.name) % len(colours)]
            mark = MARKERS[marks.index(one.marker or one.colour or one.name) % len(MARKERS)]
            looks[one.name] = look_of(one, colour, mark)
    return looks


def look_of(series: Series, colour: str, marker: str) -> dict[str, Any]:
    look: dict[str, Any] = {"color": colour, "marker": marker, "markeredgecolor": "white"}
    if series.source == "paper":
        look |= {"linewidth": 1.1, "markersize": 3.5, "markeredgecolor": colour}
    if series.faint:
        look |= {"linewidth": 0.8, "markersize": 2.5, "markeredgewidth": 0, "alpha": 0.4}
    if series.dashed:  # hollow too, because a single point has no line to be dashed
        look |= {"linestyle": DASHES, "markerfacecolor": "white", "markeredgecolor": colour}
    return look


# -- one panel


def draw_panel(axes: Axes, panel: Panel, looks: Mapping[str, dict[str, Any]]) -> dict[str, Line2D]:
    """Draw a panel, and return a line for the legend by name of series."""
    axes.set_title(short(panel.title, 44))
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    _set_scale(axes, panel)
    ours_last = sorted(panel.series, key=lambda s: s.source == "measured")
    lines = {one.name: _draw_series(axes, panel, one, looks[one.name]) for one in ours_last}
    dashed: Any = {"color": SOFT, "linewidth": 0.9, "linestyle": DASHES, "zorder": 1.5}
    if panel.diagonal:
        axes.axline((0.5, 0.5), slope=1, **dashed)
    if panel.level:
        y, name = panel.level
        axes.axhline(y, **dashed)
        axes.text(0.995, y, name, transform=axes.get_yaxis_transform(), ha="right", va="bottom", **SMALL)
    axes.set(xlim=panel.x_span, ylim=panel.y_span)
    return lines


def _draw_series(axes: Axes, panel: Panel, series: Series, look: dict[str, Any]) -> Line2D:
    points = [p for p in series.drawn if p.x is not None]
    xs, ys = _places(panel, series, [p.x for p in points]), np.array([p.y - panel.zero for p in points])
    line = "none" if len(points) < 2 or panel.x_scale == "names" else look.get("linestyle", "-")
    own = slice(1 if series.after else 0, None)  # another series has a marker at the start of this line
    (drawn,) = axes.plot(xs, ys, **look | {"linestyle": line, "markevery": own})
    bars: Any = {"fmt": "none", "ecolor": look["color"], "alpha": 0.45, "elinewidth": 1.6}
    up = whiskers([(p.y, p.low, p.high) for p in points])
    axes.errorbar(xs, ys, up, whiskers([(p.x, p.x_low, p.x_high) for p in points]), **bars)
    if panel.errors == "band" and up is not None:
        axes.fill_between(xs, ys - up[0], ys + up[1], color=look["color"], alpha=0.15, linewidth=0)
    for (x, y), (to_x, to_y) in pairwise(zip(xs, ys, strict=True)) if panel.arrows else ():
        # A head in the middle of the step, behind the markers, which hide it if the step is short.
        middle = (x + 0.55 * (to_x - x), y + 0.55 * (to_y - y))
        axes.annotate("", middle, (x, y), arrowprops={**ARROW, "color": look["color"]})
    for point in series.points:
        if point.x is None:
            drawn = _draw_level(axes, panel, point, look["color"])
        elif point.note:
            at = (point.x, point.y - panel.zero)
            axes.annotate(point.note, at, (7, -9), textcoords="offset points", **SMALL)
    return drawn


def _draw_level(axes: Axes, panel: Panel, point: Point, colour: str) -> Line2D:
    if point.low is not None and point.high is not None:
        axes.axhspan(point.low - panel.zero, point.high - panel.zero, color=colour, alpha=0.08, linewidth=0)
    return axes.axhline(point.y - panel.zero, color=colour, linewidth=1.3, linestyle=LEVEL)


def whiskers(intervals: Sequence[tuple[float | None, float | None, float | None]]) -> Any:
    """Return the distances down to ``low`` and up to ``high`` of each (value, low, high), for ``errorbar``.

    One is NaN if that end is unknown; matplotlib draws no bar then. None if no interval is known.
    """
    value, low, high = np.array(intervals, dtype=float).reshape(-1, 3).T
    # A rounding error may put a value of 0 or 1 outside its interval; distances must not be negative.
    distances = np.maximum([value - low, high - value], 0)
    return distances if np.isfinite(distances).any() else None


def _places(panel: Panel, series: Series, xs: Sequence[float | None]) -> Any:
    """Return where to draw x positions: points of many models would lie at the same one."""
    places = np.array(xs, dtype=float)
    if series.source == "paper":
        return places / paper_scale(panel)
    ours = [one.name for one in panel.series if one.source == "measured"]
    step = ours.index(series.name) - (len(ours) - 1) / 2
    return {
        "parameters": places * 1.03**step,
        "rounds": places + 0.04 * step,
        "names": places + 0.08 * step,
    }.get(panel.x_scale, places)


def paper_scale(panel: Panel) -> float:
    """Return how many of the paper's prompts are drawn as wide as one of ours: its trainings are far longer."""
    longest = {"measured": 0.0, "paper": 0.0}
    for series in panel.series:
        longest[series.source] = max([longest[series.source], *(point.x or 0.0 for point in series.points)])
    ours, paper = longest.values()
    return paper / ours if panel.x_scale == "sequences" and ours and paper else 1.0


def _set_scale(axes: Axes, panel: Panel) -> None:
    if (scale := paper_scale(panel)) != 1:
        axes.set_xlabel(f"{panel.x_label} (paper: times {in_units(scale)})")
    if panel.x_scale == "parameters":
        sizes = [point.x for series in panel.series for point in series.points if point.x]
        decades = np.floor(np.log10(0.8 * min(sizes))), np.ceil(np.log10(1.25 * max(sizes)))
        axes.set(xscale="log", xlim=10.0 ** np.array(decades))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda x, _: in_units(x))
    elif panel.x_scale == "rounds":
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    elif panel.x_scale == "names":
        places = range(1, len(panel.names) + 1)
        axes.set_xticks(places, [short(name, 18) for name in panel.names])
        axes.set_xlim(0.5, len(panel.names) + 0.5)
    elif panel.x_scale == "counts":
        axes.set_xticks([point.x for series in panel.series for point in series.points if point.x])
