"""How every figure looks. Colours are Okabe and Ito's, which the colour-blind tell apart; the paper's own are grey."""

from __future__ import annotations

from typing import Any

from constitutional_ai.safe_text import visible

INK, SOFT, GRID = "#1a1a1a", "#5f6368", "#e4e6e8"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#404040")
MARKERS = ("o", "s", "D", "^", "v", "p", "h")
GREYS = ("#70757a", "#868b90", "#9aa0a6", "#adb2b7")
DASHES = (0, (4, 2))
LEVEL = (0, (1.5, 2))
PAPER_DASHES = ((0, ()), (0, (5, 1.5)), (0, (2, 1.5)), (0, (5, 1.5, 1, 1.5)))

RULES: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, and sharp at any size
    "svg.hashsalt": "cai",  # ids are drawn from it, so that the same figure has the same bytes
    "text.parse_math": False,  # a model's name may hold dollars
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa0a6",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": "#9aa0a6",
    "ytick.color": "#9aa0a6",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.minor.visible": False,
    "text.color": INK,
    "lines.solid_capstyle": "round",
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "savefig.dpi": 200,
}

LONGEST = 34
"""Characters of a name in a figure. The CSV has all of it."""


def short(text: str, longest: int = LONGEST) -> str:
    """A stranger's name in one line. Where it is long, the middle of its longest word is left out, as what tells
    models apart often stands at an end.

    >>> short("a-very-long-name-of-a-model-at-its-end-7b: SL-CAI", 24)
    'a-very-l…-end-7b: SL-CAI'
    """
    line = " ".join(visible(text).split())
    over = len(line) - longest
    word = max(line.split(), key=len, default="")
    if over > 0 and len(word) - over >= 9:
        line = line.replace(word, _middle_out(word, len(word) - over), 1)
    return _middle_out(line, longest)


def _middle_out(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    head = longest // 2
    return f"{text[:head]}…{text[head + 1 - longest :]}"


def in_units(number: float) -> str:
    """
    >>> [in_units(n) for n in (64, 2500, 134_515_008, 1.6e9, 52e9)]
    ['64', '2.5k', '135M', '1.6B', '52B']
    """
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            scaled = number / size
            return f"{scaled:.0f}{unit}" if scaled >= 99.5 else f"{scaled:.3g}{unit}"
    return f"{number:.3g}"
