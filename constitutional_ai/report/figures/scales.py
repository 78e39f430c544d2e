"""The axes of a panel: how far they go, where their marks are, and what is moved aside on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from constitutional_ai.report.figures import style
from constitutional_ai.report.figures.figure import Panel, Source

STEPS = [1, 2, 2.5, 5, 10]


def set_scales(axes: Axes, panel: Panel) -> None:
    xs = sorted({p.x for s in panel.series for p in s.drawn if p.x is not None})
    if panel.x_scale == "plain":
        ends = [x for s in panel.series for p in s.points for x in (p.x_low, p.x_high) if x is not None]
        axes.set_xlim(*(panel.span or _span([*xs, *ends], 0.07)))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    elif panel.x_scale == "sequences":
        _sequences(axes, panel)
    elif panel.x_scale == "parameters":
        _parameters(axes, panel, xs)
    else:
        axes.set_xlim(*_span(xs, 0.06))
        whole = MaxNLocator(8, integer=True)
        axes.xaxis.set_major_locator(whole if panel.x_scale == "rounds" else FixedLocator(xs))
    axes.set_ylim(*(panel.span or _span(_heights(panel), 0.07)))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))


def _heights(panel: Panel) -> list[float]:
    """All heights that a panel must show."""
    ends = [y for s in panel.series for p in s.drawn for y in (p.low, p.y, p.high) if y is not None]
    return [y - panel.zero for y in ends] + ([panel.level[0]] if panel.level else [])


def _span(values: Sequence[float], room: float) -> tuple[float, float]:
    """From the least to the greatest, with some room."""
    low, high = min(values), max(values)
    more = room * (high - low) or 0.1 * abs(high) or 1.0
    return low - more, high + more


def _parameters(axes: Axes, panel: Panel, xs: Sequence[float]) -> None:
    wide = xs[-1] / xs[0]
    room = wide**0.08 if wide > 1 else 2.0
    axes.set_xscale("log")
    axes.set_xlim(xs[0] / room, xs[-1] * room)
    ours = {p.x for s in panel.series for p in s.points if s.source == "measured" and p.x is not None}
    axes.xaxis.set_major_locator(FixedLocator(_apart([*sorted(ours), *xs], wide**0.12)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.in_units(x)))


def _apart(sizes: Sequence[float], factor: float) -> list[float]:
    """Those whose labels do not touch; the first come first."""
    kept: list[float] = []
    for size in sizes:
        if all(max(size / other, other / size) > factor for other in kept):
            kept.append(size)
    return sorted(kept) or list(sizes[:1])


def _sequences(axes: Axes, panel: Panel) -> None:
    end, factor = _end(panel, "measured"), in_the_paper(panel)
    axes.set_xlim(-0.03 * end, 1.04 * end)
    _in_units(axes.xaxis)
    if factor != 1:
        above = axes.secondary_xaxis("top", functions=_both_ways(factor))
        above.set_xlabel("in the paper", color=style.SOFT, fontsize=8)
        above.tick_params(labelcolor=style.SOFT)
        _in_units(above.xaxis)


def _in_units(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axis.set_major_formatter(FuncFormatter(lambda x, _: style.in_units(x) if x >= 0 else ""))


def _end(panel: Panel, source: Source) -> float:
    """How long the longest training is."""
    ends = (p.x for s in panel.series if s.source == source for p in s.points if p.x is not None)
    return max(ends, default=0.0)


def in_the_paper(panel: Panel) -> float:
    """How many of the paper's prompts are as wide as one of ours: trainings a thousand times longer have an axis of
    their own, above, on which both end at one place."""
    ours, paper = _end(panel, "measured"), _end(panel, "paper")
    return paper / ours if panel.x_scale == "sequences" and ours and paper else 1.0


def _both_ways(factor: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return lambda x: x * factor, lambda x: x / factor


def shifts(axes: Axes, panel: Panel) -> dict[str, Transform]:
    """Series that would lie upon each other, a little to the left and right: only drawn so, not in the data."""
    if panel.x_scale not in ("parameters", "rounds"):
        return {}
    placed = [s for s in panel.series if s.source == "measured" and any(p.x is not None for p in s.points)]
    often = Counter(x for s in placed for x in {p.x for p in s.points if p.x is not None})
    beside = [s for s in placed if any(p.x is not None and often[p.x] > 1 for p in s.points)]
    alone = panel.x_scale == "parameters" and len({p.x for s in panel.series for p in s.points} - {None}) == 1
    step = min(20.0, 150.0 / max(1, len(beside))) if alone else 2.5  # points
    inches = axes.figure.dpi_scale_trans
    return {
        s.name: axes.transData + ScaledTranslation((n - (len(beside) - 1) / 2) * step / 72, 0, inches)
        for n, s in enumerate(beside)
    }
