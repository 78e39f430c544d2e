"""Draw a sweep: objections and refusals of harmless prompts over the values of a key."""

from __future__ import annotations

from pathlib import Path

from constitutional_ai.evaluation.sweep_table import SHOWN, Sweep, SweepRow
from constitutional_ai.recipes.arms import SEED
from constitutional_ai.report.contents import LABEL
from constitutional_ai.report.figures.figure import SHARES, Panel, PaperFigure, Point, Series
from constitutional_ai.runs import layout

TITLES = dict(zip(SHOWN, ("objects to red-team prompts", "refuses harmless prompts"), strict=True))


def sweep_figure(sweep: Sweep) -> PaperFigure:
    """Return a panel for each measure and a line for each model and each setting of the other keys.

    The horizontal axis is the first key that is not the seed. Values that are not all numbers stand on it by name, in
    the order in which they were typed. Where there are several seeds, points are means over them.
    """
    rows = sweep.over_seeds or sweep.rows
    key = next((one for one in sweep.keys if one != SEED), SEED)
    if key == SEED:
        rows = sweep.rows
    known = list(dict.fromkeys(row.values.get(key, "") for row in rows))
    numbers = _numbers(known)
    names = () if numbers else tuple(known)
    places = numbers or {value: float(n) for n, value in enumerate(known, start=1)}
    panels = [
        Panel(
            title,
            key,
            "share of answers",
            tuple(_lines([row for row in rows if row.value.name == name], key, places)),
            x_scale="names" if names else "plain",
            names=names,
            y_span=SHARES,
        )
        for name, title in TITLES.items()
    ]
    over = "seeds" if rows is sweep.over_seeds else "prompts"
    notes = [f"Bars: 95 % intervals over {over}."]
    left_out = (f"Without results: {', '.join(sweep.stopped)}.",) if sweep.stopped else ()
    return PaperFigure(0, tuple(panels), (*notes, *left_out), left_out)


def _numbers(values: list[str]) -> dict[str, float] | None:
    """Return the number that each value is; None if one of them is none."""
    try:
        return {value: float(value) for value in values}
    except ValueError:
        return None


def _lines(rows: list[SweepRow], key: str, places: dict[str, float]) -> list[Series]:
    lines: dict[str, list[Point]] = {}
    for row in rows:
        v = row.value
        if v.value is None or v.model == layout.START:
            continue
        others = [f"{k}={value}" for k, value in row.values.items() if k != key]
        name = ", ".join([LABEL.get(v.model, v.model), *others])
        x = places[row.values.get(key, "")]
        point = Point(x, v.value, v.low, v.high, count=v.count, model=row.arm)
        lines.setdefault(name, []).append(point)
    return [Series(name, tuple(points)) for name, points in lines.items()]


def write_figure(sweep: Sweep, folder: Path) -> Path:
    """Write ``sweep.svg``, whose numbers are in ``sweep.csv``, and return its path."""
    from constitutional_ai.report.figures.draw import draw

    path = folder / "sweep.svg"
    path.write_bytes(draw(sweep_figure(sweep))["svg"])
    return path
