"""Build lines over model size and over training, for several figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from constitutional_ai.errors import InputError
from constitutional_ai.records import Metric
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Point, Series
from constitutional_ai.report.figures.measured import (
    Evaluation,
    Measured,
    measured,
    missing,
    origin,
    shared,
    trainings,
)

Place = Callable[[Measured], float | None]


def point(x: float | None, metric: Metric, label: str) -> Point:
    assert metric.value is not None
    return Point(x, metric.value, metric.low, metric.high, count=metric.count, model=label)


def points_of(models: Iterable[Measured], metric: str, place: Place) -> tuple[Point, ...]:
    """Return a point for each model whose ``metric`` was measured."""
    values = [(one, one.value(metric)) for one in models]
    return tuple(point(place(one), value, one.label) for one, value in values if value is not None)


def of_the_paper(name: str, xs: Sequence[float], ys: Sequence[float | None]) -> Series:
    """Return the paper's numbers as a series: they have no intervals and no counts."""
    points = tuple(Point(x, y) for x, y in zip(xs, ys, strict=True) if y is not None)
    return Series(f"paper: {name}", points, "paper")


# -- over model size


def over_size(name: str, group: Sequence[Measured], metric: str) -> Series:
    return Series(name, points_of(group, metric, lambda one: one.candidate.parameters))


def size_panel(title: str, y_label: str, series: Iterable[Series]) -> Panel:
    return Panel(title, "parameters", y_label, tuple(s for s in series if s.points), x_scale="parameters")


def against_size(figure: PaperFigure, what: str, part: str, evaluations: Sequence[Evaluation]) -> PaperFigure:
    """Return the figure without its empty panels.

    Raises InputError if nothing was measured, or no model's size is known.
    """
    problem = (
        "is drawn against the number of parameters, which is known for none of {}. Evaluate models whose weights are "
        "on this machine: hf:FOLDER"
    )
    return _without_empty(
        figure, missing(figure.number, what, part, evaluations), problem, lambda p: p.x is not None
    )


# -- over training


def over_training(evaluations: Sequence[Evaluation], metric: str) -> list[Series]:
    """Return a line for each training, from the model that it started from."""
    everyone, lines = measured(evaluations), []
    for training in trainings(everyone):
        points = points_of(training, metric, _sequences)
        start = origin(training, everyone)
        before = points_of([start], metric, _sequences) if start else ()
        if points:
            after = before[0] if before else None
            colour, marker = shared(training, everyone)
            lines.append(Series(training[-1].label, points, colour=colour, marker=marker, after=after))
    return lines


def _sequences(one: Measured) -> float | None:
    return one.candidate.sequences or (0 if one.candidate.run else None)


def sequences_panel(title: str, y_label: str, series: Iterable[Series]) -> Panel:
    return Panel(title, "prompts seen in RL", y_label, tuple(series), x_scale="sequences", errors="band")


def against_training(
    figure: PaperFigure, what: str, part: str, evaluations: Sequence[Evaluation]
) -> PaperFigure:
    """Return the figure without its empty panels.

    Raises InputError if nothing was measured, or no model was trained by RL.
    """
    problem = (
        "is drawn over the course of RL, which trained none of {}. Evaluate a run with snapshots: set "
        "rl_cai.snapshot_every, finish the run, then run: cai evaluate RUN"
    )
    return _without_empty(figure, missing(figure.number, what, part, evaluations), problem, lambda p: bool(p.x))


def _without_empty(
    figure: PaperFigure, nothing: InputError, problem: str, placed: Callable[[Point], bool]
) -> PaperFigure:
    """Drop panels in which no measured point is ``placed`` on the x axis, and name them in a note.

    Raises ``nothing`` if no panel has a point, and the ``problem`` if none is placed.
    """
    points = {
        panel.title: [p for series in panel.series if series.source == "measured" for p in series.points]
        for panel in figure.panels
    }
    models = list(dict.fromkeys(p.model for own in points.values() for p in own))
    if not models:
        raise nothing
    panels = tuple(panel for panel in figure.panels if any(map(placed, points[panel.title])))
    if not panels:
        raise InputError(f"figure {figure.number} {problem.format(', '.join(models))}")
    gone = [panel.title for panel in figure.panels if panel not in panels]
    notes = (*figure.notes, f"Not measured: {', '.join(gone)}.") if gone else figure.notes
    return replace(figure, panels=panels, notes=notes)
