"""Draw the charts of the page as inline SVG, with colours from the style sheet, so that they suit both themes.

It uses no pyplot, which has global state; the same numbers give the same bytes. One unit is one CSS pixel.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from html import escape
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from constitutional_ai.runs import layout

# matplotlib accepts only known colours, so each of these stands for a variable of the page's style sheet.
INK, RULE, COLOUR = (
    "#010101",
    "#010102",
    {layout.START: "#010103", layout.SL_CAI: "#010104", layout.RL_CAI: "#010105"},
)
VARIABLES = {INK: "--soft", RULE: "--rule"} | {colour: f"--{role}" for role, colour in COLOUR.items()}
MARKER = {layout.START: "o", layout.SL_CAI: "s", layout.RL_CAI: "D"}
LABEL = {layout.START: "start", layout.SL_CAI: "SL-CAI", layout.RL_CAI: "RL-CAI"}
WIDTH = 320
TEXT: Any = {"svg.fonttype": "none", "text.parse_math": False}
"""Settings that keep text as text, which can be searched, and dollar signs in names from starting a formula."""
STYLE: Any = {**TEXT, "font.size": 11, "axes.linewidth": 0.8}
DASHED: Any = {"color": INK, "linewidth": 0.9, "linestyle": (0, (3, 3))}
"""Line properties of a level to compare with."""
UNDATED = dict.fromkeys(("Date", "Creator", "Format", "Type"))
"""Metadata that SVG files must not have, because it would differ each time."""


class Chart(NamedTuple):
    title: str
    caption: str
    svg: str


def panel(
    *,
    height: int,
    left: int,
    bottom: int,
    wide: int = WIDTH,
    top: int = 8,
    grid: Literal["x", "y", "both"] = "y",
) -> tuple[Figure, Axes]:
    """Return a figure and its axes; sizes and margins are in pixels."""
    width, room = wide - left - 14, height - bottom - top
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(wide / 72, height / 72))
        axes = figure.add_axes((left / wide, bottom / height, width / wide, room / height))
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=RULE, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(color=RULE, labelcolor=INK)
    return figure, axes


def write(
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], size: float = 10, **how: Any
) -> None:
    axes.annotate(
        text, at, offset, textcoords="offset points", color=INK, fontsize=size, parse_math=False, **how
    )


def whiskers(metrics: Iterable[tuple[float, float | None, float | None]]) -> tuple[list[float], list[float]]:
    """Return the distances down to ``low`` and up to ``high`` of each (value, low, high), for ``errorbar``.

    Both are NaN, which is not drawn, unless both ends of the interval are known.
    """
    nothing = (math.nan, math.nan)
    # A rounding error may put a value of 0 or 1 outside its interval; distances must not be negative.
    ends = [
        nothing if low is None or high is None else (max(0.0, value - low), max(0.0, high - value))
        for value, low, high in metrics
    ]
    return [below for below, _ in ends], [above for _, above in ends]


def short(value: float) -> str:
    """Return a number as a short text for a drawing."""
    return (f"{value:.0f}" if abs(value) >= 20 else f"{value:.2f}").replace("-", "−")


def chart_of(figure: Figure, title: str, caption: str, description: str) -> Chart:
    """Return the chart, with the ``svg`` element alone. ``description`` is for screen readers.

    Strangers' names never stand in a drawing: it has letters, and the table beside it has the names.
    """
    out = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure.savefig(out, format="svg", metadata=UNDATED)
    svg = out.getvalue()[out.getvalue().index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>| xmlns(:\w+)?=\"[^\"]*\"", "", svg, flags=re.S)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg.replace("xlink:href", "href"))
    used = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    label = escape(f"{title}: {description}")
    opening = f'<svg role="img" aria-label="{label}" width="{figure.get_figwidth() * 72:.0f}"'
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    return Chart(title, caption, re.sub(r'<svg width="[^"]*" height="[^"]*"', lambda _: opening, svg, count=1))
