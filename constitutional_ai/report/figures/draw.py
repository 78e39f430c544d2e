"""Draw a figure's data with matplotlib, as SVG with text that can be searched, and as PNG.

The same data give the same bytes: pyplot, with its global state, is not used, and the user's settings are ignored.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from constitutional_ai.report.drawing import TEXT, UNDATED, whiskers
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Point, Series, Source, in_units, short

SIZES = {1: (5.0, 3.7), 2: (3.8, 3.3), 3: (3.2, 2.9)}
"""Width of a panel with its axis labels in inches, by number of panels."""
INK, SOFT = "#1a1a1a", "#5f6368"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#404040")
GREYS = ("#70757a", "#868b90", "#9aa0a6", "#adb2b7")
"""Colours of the paper's numbers."""
MARKERS = ("o", "s", "D", "^", "v", "p", "h")
DASHES = (0, (4, 2))
LEVEL = (0, (1.5, 2))
PAPER_DASHES = ("-", (0, (5, 1.5)), (0, (2, 1.5)), (0, (5, 1.5, 1, 1.5)))

RULES: dict[str, Any] = {
    **TEXT,
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
    "grid.color": "#e4e6e8",
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
SMALL: dict[str, Any] = {"fontsize": 7.5, "color": SOFT}


class Drawing(NamedTuple):
    svg: bytes
    png: bytes


def draw(figure: PaperFigure) -> Drawing:
    with styled():
        drawn = laid_out(figure)
        svg = _saved(drawn, "svg", UNDATED)
        return Drawing(svg, _saved(drawn, "png", {"Software": None}))


@contextmanager
def styled() -> Iterator[None]:
    """Use only our matplotlib settings within the block."""
    with matplotlib.style.context(["default", RULES]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name in another script
        yield


def _saved(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, metadata=metadata, facecolor="white")
    return out.getvalue()


def laid_out(figure: PaperFigure) -> Figure:
    """Return the panels side by side, a legend to their right and the notes below. Call it within ``styled``."""
    series = list({s.name: s for panel in figure.panels for s in panel.series}.values())
    looks, names = looks_of(series), [short(one.name) for one in series]
    wide, high = SIZES.get(len(figure.panels), SIZES[3])
    width = wide * len(figure.panels) + 0.6 + 0.075 * max(map(len, names))
    notes = "\n".join(line for note in figure.notes for line in textwrap.wrap(note, int(16 * width)))
    height = max(high, 0.2 * len(names) + 0.5) + 0.16 * notes.count("\n")
    drawn = Figure(figsize=(width, height), layout="constrained")
    for axes, panel in zip(drawn.subplots(1, len(figure.panels), squeeze=False)[0], figure.panels, strict=True):
        draw_panel(axes, panel, looks)
    drawn.legend(
        [_sample(one, looks[one.name]) for one in series],
        names,
        loc="outside right upper",
        labelcolor=[INK if one.source == "measured" else SOFT for one in series],
    )
    drawn.supxlabel(notes, x=0.01, ha="left", linespacing=1.5, **SMALL)
    return drawn


def _sample(series: Series, look: dict[str, Any]) -> Line2D:
    """Return a line for the legend."""
    if all(point.x is None for point in series.points):
        return Line2D([], [], color=look["color"], linestyle=LEVEL)
    return Line2D([], [], **look | ({} if len(series.drawn) > 1 else {"linestyle": "none"}))


def draw_panel(axes: Axes, panel: Panel, looks: dict[str, dict[str, Any]]) -> None:
    axes.set_title(short(panel.title, 44))
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    _set_scales(axes, panel)
    for series in sorted(panel.series, key=lambda s: s.source == "measured"):  # ours above the paper's
        _draw_series(axes, panel, series, looks[series.name])
    dashed: Any = {"color": SOFT, "linewidth": 0.9, "linestyle": DASHES, "zorder": 1.5}
    if panel.diagonal:
        axes.axline((0.5, 0.5), slope=1, **dashed)
    if panel.level:
        y, name = panel.level
        axes.axhline(y, **dashed)
        axes.text(0.995, y, name, transform=axes.get_yaxis_transform(), ha="right", va="bottom", **SMALL)


def _draw_series(axes: Axes, panel: Panel, series: Series, look: dict[str, Any]) -> None:
    points = [p for p in series.drawn if p.x is not None]
    scale = paper_scale(panel) if series.source == "paper" else 1.0
    xs = [x / scale for x in _moved(panel, series, [p.x for p in points if p.x is not None])]
    ys = [p.y - panel.zero for p in points]
    own = slice(1 if series.after else 0, None)  # another series has a marker at the start of this line
    axes.plot(xs, ys, **look | {"marker": "none"})
    axes.plot(xs[own], ys[own], **look | {"linestyle": "none", "zorder": 4})
    below, above = whiskers([(p.y, p.low, p.high) for p in points])
    bars: Any = {"fmt": "none", "ecolor": look["color"], "alpha": 0.45, "elinewidth": 1.6}
    sideways = whiskers([(p.x or 0.0, p.x_low, p.x_high) for p in points])
    axes.errorbar(xs, ys, yerr=(below, above), xerr=sideways, **bars)
    if panel.errors == "band":
        low, high = (
            [y + sign * d for y, d in zip(ys, ds, strict=True)] for sign, ds in ((-1, below), (1, above))
        )
        axes.fill_between(xs, low, high, color=look["color"], alpha=0.15, linewidth=0)
    if panel.arrows:
        _draw_arrows(axes, list(zip(xs, ys, strict=True)), look["color"])
    for point in series.points:
        if point.x is None:
            _draw_level(axes, panel, point, look["color"])
        elif panel.counts and point.count is not None:
            at = (point.x, point.y - panel.zero)
            axes.annotate(f"{point.count}", at, (7, -9), textcoords="offset points", **SMALL)


def _draw_level(axes: Axes, panel: Panel, point: Point, colour: str) -> None:
    axes.axhline(point.y - panel.zero, color=colour, linewidth=1.3, linestyle=LEVEL)
    if point.low is not None and point.high is not None:
        axes.axhspan(point.low - panel.zero, point.high - panel.zero, color=colour, alpha=0.08, linewidth=0)


def _draw_arrows(axes: Axes, places: Sequence[tuple[float, float]], colour: str) -> None:
    """Draw an arrowhead in the middle of every step, behind the markers, which hide it if the step is short."""
    arrow = {"arrowstyle": "-|>,head_width=0.25,head_length=0.5", "color": colour, "linewidth": 0, "shrinkB": 0}
    for (x, y), (to_x, to_y) in pairwise(places):
        middle = (x + 0.55 * (to_x - x), y + 0.55 * (to_y - y))
        axes.annotate("", middle, (x, y), arrowprops=arrow)


# -- colours and markers


def looks_of(series: Sequence[Series]) -> dict[str, dict[str, Any]]:
    """Return matplotlib's line properties for every series of a figure by its name, the same in all its panels."""
    looks = {}
    for source, colours in (("measured", COLOURS), ("paper", GREYS)):
        own = [one for one in series if one.source == source]
        hues = list(dict.fromkeys(one.colour or one.name for one in own))
        marks = list(dict.fromkeys(one.marker or one.colour or one.name for one in own))
        for one in own:
            hue, mark = hues.index(one.colour or one.name), marks.index(one.marker or one.colour or one.name)
            # When colours repeat, they are combined with other markers.
            mark += 0 if one.marker else hue // len(colours)
            dashes: Any = DASHES if one.dashed else "-"
            if source == "paper" and one.colour is None:  # greys alone are hard to tell apart
                dashes = PAPER_DASHES[hue % len(PAPER_DASHES)]
            looks[one.name] = _look(colours[hue % len(colours)], MARKERS[mark % len(MARKERS)], dashes, one)
    return looks


def _look(colour: str, marker: str, dashes: Any, series: Series) -> dict[str, Any]:
    look = {"color": colour, "marker": marker, "linestyle": dashes, "markeredgecolor": "white"}
    if series.source == "paper":
        look |= {"linewidth": 1.1, "markersize": 3, "markeredgecolor": colour}
    if series.dashed:  # hollow too, because a single point has no line to be dashed
        look |= {"markerfacecolor": "white", "markeredgecolor": colour}
    return look


# -- axes


def _set_scales(axes: Axes, panel: Panel) -> None:
    xs = sorted({p.x for s in panel.series for p in s.drawn if p.x is not None})
    if panel.span:
        axes.set(xlim=panel.span, ylim=panel.span)
    if panel.x_scale == "sequences":
        _in_units(axes.xaxis)
        if (factor := paper_scale(panel)) != 1:
            both_ways: Any = (lambda x: x * factor, lambda x: x / factor)
            above = axes.secondary_xaxis("top", functions=both_ways)
            above.set_xlabel("in the paper", color=SOFT, fontsize=8)
            above.tick_params(labelcolor=SOFT)
            _in_units(above.xaxis)
    elif panel.x_scale == "parameters":
        axes.set_xscale("log")
        ours = sorted({p.x for s in panel.series for p in s.points if s.source == "measured" and p.x})
        axes.set_xticks(sizes := _apart([*ours, *xs]), map(in_units, sizes))
        axes.xaxis.set_minor_locator(NullLocator())
    elif panel.x_scale == "rounds":
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    elif panel.x_scale == "counts":
        axes.set_xticks(xs)


def _apart(sizes: Sequence[float]) -> list[float]:
    """Return the sizes whose labels do not touch on a logarithmic axis; earlier ones have priority."""
    kept: list[float] = []
    for size in sizes:
        if all(max(size / other, other / size) > (max(sizes) / min(sizes)) ** 0.13 for other in kept):
            kept.append(size)
    return kept or list(sizes[:1])


def _in_units(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda x, _: in_units(x) if x >= 0 else "")


def paper_scale(panel: Panel) -> float:
    """Return how many of the paper's prompts are as wide as one of ours.

    Its trainings are a thousand times longer, so they have their own axis, on which the longest ends where ours does.
    """
    ours, paper = _longest(panel, "measured"), _longest(panel, "paper")
    return paper / ours if panel.x_scale == "sequences" and ours and paper else 1.0


def _longest(panel: Panel, source: Source) -> float:
    return max((p.x or 0.0 for s in panel.series if s.source == source for p in s.points), default=0.0)


def _moved(panel: Panel, series: Series, xs: list[float]) -> list[float]:
    """Return x positions shifted a little, so that points of several series do not overlap."""
    ours = [s for s in panel.series if s.source == "measured"]
    often = Counter(x for s in ours for x in {p.x for p in s.points if p.x is not None})
    names = [s.name for s in ours if any(p.x is not None and often[p.x] > 1 for p in s.points)]
    if panel.x_scale not in ("parameters", "rounds") or series.name not in names:
        return xs
    at = names.index(series.name) - (len(names) - 1) / 2
    if panel.x_scale == "rounds":
        return [x + 0.04 * at for x in xs]
    every = [p.x for s in panel.series for p in s.points if p.x]
    return [x * max(max(every) / min(every), 2.0) ** (0.012 * at) for x in xs]
