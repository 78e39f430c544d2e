"""Draw how each two principles agree in ``cai constitution test``, as a matrix: SVG with text, and PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from constitutional_ai.evaluation.principles.principle_report import Agreement
from constitutional_ai.report.figures.draw import INK, UNDATED, styled
from constitutional_ai.report.figures.figure import short

CELL, MARGIN = 0.34, 2.2
"""Inches of a cell, and of the names beside the matrix."""
MOST = 60
"""Largest number of principles that a figure can show; agreement.csv has all."""
OPEN = "#9aa0a6"
"""Colour of a number whose interval holds one half."""


def agreement_matrix(names: Sequence[str], related: Sequence[Agreement]) -> dict[str, bytes]:
    """Return the matrix as ``svg`` and ``png``; nothing for fewer than two principles, or more than ``MOST``.

    A cell has the share of the decided pairs in which both principles choose the same answer. It is grey where the
    95 % interval holds one half, and bold where the two are redundant or contradicting.
    """
    if not 2 <= len(names) <= MOST:
        return {}
    files = {}
    with styled():
        drawn = _laid_out(names, related)
        for kind, metadata in (("svg", UNDATED), ("png", {"Software": None})):
            out = io.BytesIO()
            drawn.savefig(out, format=kind, metadata=metadata, facecolor="white")
            files[kind] = out.getvalue()
    return files


def _laid_out(names: Sequence[str], related: Sequence[Agreement]) -> Figure:
    side = CELL * len(names) + MARGIN
    drawn = Figure(figsize=(side + 1, side), layout="constrained")
    axes = drawn.subplots()
    at = {name: number for number, name in enumerate(names)}
    shares = np.full((len(names), len(names)), np.nan)
    for one in related:
        row, column = sorted((at[one.one], at[one.other]), reverse=True)  # below the diagonal
        if one.share.value is not None:
            shares[row, column] = one.share.value
            axes.text(column, row, f"{100 * one.share.value:.0f}", **_look(one))
    image = axes.imshow(shares, cmap="RdBu", vmin=0, vmax=1, alpha=0.75)
    axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=90)
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.grid(visible=False)
    axes.set_title("Pairs on which two principles choose the same answer, in %")
    drawn.colorbar(image, ax=axes, shrink=0.6, label="agreement")
    return drawn


def _look(one: Agreement) -> dict[str, Any]:
    sure = one.relation in ("redundant", "contradicting")
    return {
        "ha": "center",
        "va": "center",
        "fontsize": 7,
        "color": OPEN if one.relation == "independent" else INK,
        "fontweight": "bold" if sure else "normal",
    }
