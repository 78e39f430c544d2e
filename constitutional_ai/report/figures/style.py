"""Colours, markers and lettering of the figures. The colours are Okabe and Ito's, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from constitutional_ai.report.drawing import TEXT
from constitutional_ai.report.figures.figure import Series
from constitutional_ai.safe_text import visible

INK, SOFT = "#1a1a1a", "#5f6368"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#404040")
GREYS = ("#70757a", "#868b90", "#9aa0a6", "#adb2b7")
"""Colours of the paper's own numbers."""
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


def looks_of(series: Sequence[Series]) -> dict[str, dict[str, Any]]:
    """Return matplotlib's line properties for every series of a figure by its name, the same in all its panels."""
    looks = {}
    for source, colours in (("measured", COLOURS), ("paper", GREYS)):
        own = [one for one in series if one.source == source]
        hues = list(dict.fromkeys(one.colour or one.name for one in own))
        marks = list(dict.fromkeys(one.marker or one.colour or one.name for one in own))
        for one in own:
            hue, mark = hues.index(one.colour or one.name), marks.index(one.marker or one.colour or one.name)
            # Once the colours run out, each meets another marker than the first time.
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


def short(text: str, longest: int = 34) -> str:
    """Return a name as one safe line, without its middle where it is long: models often differ at an end.

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
