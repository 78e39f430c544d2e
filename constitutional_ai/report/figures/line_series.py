"""Lines over model size and over training: what several figures share."""

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


def points_of(found: Iterable[Measured], metric: str, place: Place) -> tuple[Point, ...]:
    """Of those that were measured."""
    values = [(one, one.value(metric)) for one in found]
    return tuple(point(place(one), value, one.label) for one, value in values if value is not None)


def of_the_paper(name: str, xs: Sequence[float], ys: Sequence[float | None]) -> Series:
    """Numbers read off a figure: without intervals and counts."""
    points = tuple(Point(x, y) for x, y in zip(xs, ys, strict=True) if y is not None)
    return Series(f"paper: {name}", points, "paper")


# -- over model size


def over_size(name: str, group: Sequence[Measured], metric: str) -> Series:
    return Series(name, points_of(group, metric, lambda one: one.candidate.parameters))


def size_panel(title: str, y_label: str, series: Iterable[Series]) -> Panel:
    return Panel(title, "parameters", y_label, tuple(s for s in series if s.points), x_scale="parameters")


def against_size(figure: PaperFigure, what: str, part: str, evaluations: Sequence[Evaluation]) -> PaperFigure:
    """Raises InputError where nothing was measured, or no model's size is known."""
    points = _measured(figure)
    if not points:
        raise missing(figure.number, what, part, evaluations)
    if all(point.x is None for point in points):
        raise InputError(
            f"figure {figure.number} is drawn against the number of parameters, which is known of none of "
            f"{_who(points)}. Evaluate models whose weights lie here: hf:FOLDER"
        )
    return _without_empty(figure, lambda point: point.x is not None)


# -- over training


def over_training(evaluations: Sequence[Evaluation], metric: str) -> list[Series]:
    """A line for each training, from what it started from; a model that no RL made is a level."""
    everyone, made = measured(evaluations), []
    for training in trainings(everyone):
        points = points_of(training, metric, _sequences)
        start = origin(training, everyone)
        before = points_of([start], metric, _sequences) if start else ()
        if points:
            after = before[0] if before else None
            colour, marker = shared(training, everyone)
            made.append(Series(training[-1].label, points, colour=colour, marker=marker, after=after))
    return made


def _sequences(one: Measured) -> float | None:
    return one.candidate.sequences or (0 if one.candidate.run else None)


def sequences_panel(title: str, y_label: str, series: Iterable[Series]) -> Panel:
    said = "prompts seen in RL"
    return Panel(title, said, y_label, tuple(series), x_scale="sequences", errors="band")


def against_training(
    figure: PaperFigure, what: str, part: str, evaluations: Sequence[Evaluation]
) -> PaperFigure:
    """Raises InputError where nothing was measured, or no model was made by RL."""
    points = _measured(figure)
    if not points:
        raise missing(figure.number, what, part, evaluations)
    if not any(point.x for point in points):
        raise InputError(
            f"figure {figure.number} is drawn over the course of RL, and RL made none of {_who(points)}. Evaluate "
            "a run with its snapshots: set rl_cai.snapshot_every, finish the run, then type cai evaluate RUN"
        )
    return _without_empty(figure, lambda point: bool(point.x))


def _without_empty(figure: PaperFigure, placed: Callable[[Point], bool]) -> PaperFigure:
    """Without panels in which nothing of ours has a place, and with a note of them."""
    full = [
        any(placed(point) for series in panel.series if series.source == "measured" for point in series.points)
        for panel in figure.panels
    ]
    panels = [panel for panel, any_there in zip(figure.panels, full, strict=True) if any_there]
    gone = [panel.title for panel, any_there in zip(figure.panels, full, strict=True) if not any_there]
    notes = (*figure.notes, f"Not measured: {', '.join(gone)}.") if gone else figure.notes
    return replace(figure, panels=tuple(panels), notes=notes)


def _measured(figure: PaperFigure) -> list[Point]:
    return [point for _, series, point in figure.points() if series.source == "measured"]


def _who(points: Iterable[Point]) -> str:
    return ", ".join(dict.fromkeys(point.model for point in points))
