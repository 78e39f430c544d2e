"""Build figures 4, 11 and 12: how often models choose the right answer, against their size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from constitutional_ai.records import Metric
from constitutional_ai.report.figures import paper_numbers as paper
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Series
from constitutional_ai.report.figures.line_series import (
    against_size,
    of_the_paper,
    over_size,
    point,
    size_panel,
)
from constitutional_ai.report.figures.measured import Evaluation, by_size, measured

METHODS = {
    "multiple_choice": "multiple choice",
    "chain_of_thought": "chain of thought",
    "ensembled": "ensembled chain of thought",
    "preference_model": "preference model",
}
MODES = {"zero_shot": "zero-shot", "few_shot": "few-shot", "chain_of_thought": "chain of thought"}
TASKS = (
    ("harm_identification", "harmful or ethical?", 1 / 2),
    ("harm_classification", "which of nine kinds of harm?", 1 / 9),
)
INTERVALS = "Bars: 95 % intervals. Models of one size are drawn beside each other."
GREY = "Grey: Bai et al. 2022, on 438 questions, as read off the figure."


def figure_4(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return accuracy on the 438 pairs (EV-1), or on our own gate questions if the paper's file was not given."""
    stem = "hhh_accuracy" if any(_under(e, "hhh_accuracy.") for e in evaluations) else "gate_accuracy"
    measure = (
        "accuracy on HHH comparisons" if stem == "hhh_accuracy" else "accuracy on our gate questions, not HHH"
    )
    series = _series(evaluations, stem, METHODS)
    grey = [
        of_the_paper(METHODS[method], paper.HHH_SIZES, values) for method, values in paper.HHH_ACCURACY.items()
    ]
    panel = _panel("", measure, [*series, *(grey if behind else [])], chance=0.5)
    return against_size(
        PaperFigure(4, (panel,), (INTERVALS, *([GREY] if behind else []))), measure, "hhh", evaluations
    )


def figure_11(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return accuracy on the older 221 pairs (EV-3)."""
    measure = "accuracy on the original 221"
    panel = _panel("", measure, _series(evaluations, "hhh221_accuracy", METHODS), chance=0.5)
    return against_size(PaperFigure(11, (panel,), (INTERVALS,)), measure, "hhh --paper FOLDER", evaluations)


def figure_12(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return accuracy in identifying harm, and in telling nine kinds of it apart (EV-4, EV-5, EV-6)."""
    panels = [
        _panel(title, "accuracy", _series(evaluations, stem, MODES), chance=chance)
        for stem, title, chance in TASKS
    ]
    figure = PaperFigure(12, tuple(panels), (INTERVALS,))
    return against_size(figure, "accuracy of harm identification", "harm --paper FOLDER", evaluations)


def _panel(title: str, y_label: str, series: Iterable[Series], *, chance: float) -> Panel:
    return replace(size_panel(title, y_label, series), level=(chance, "chance"))


def _series(evaluations: Sequence[Evaluation], stem: str, methods: Mapping[str, str]) -> list[Series]:
    """Return a line for each method, and for each kind of model if there are several."""
    lines = by_size(measured(evaluations), join_named=True)
    series = []
    for method, title in methods.items():
        for name, group in lines:
            line = over_size(name, group, f"{stem}.{method}")
            if line.points and len(lines) > 1:
                series.append(replace(line, name=f"{name}, {title}", colour=method, marker=name))
            elif line.points:
                series.append(replace(line, name=title))
        series += _others(evaluations, f"{stem}.{method}", title)
    return series


def _others(evaluations: Sequence[Evaluation], metric: str, title: str) -> list[Series]:
    """Return models that are no candidates, such as preference models: their size is not known here."""
    others = []
    for evaluation in evaluations:
        known = {one.label for one in evaluation.candidates}
        for model in dict.fromkeys(m.model for m in evaluation.metrics if m.name == metric):
            value = evaluation.value(metric, model)
            if model not in known and value is not None:
                shown = evaluation.shown(model)
                others.append(Series(f"{shown}, {title}", (point(None, value, shown),), colour=title))
    return others


def _under(evaluation: Evaluation, stem: str) -> list[Metric]:
    return [m for m in evaluation.metrics if m.name.startswith(stem) and m.value is not None]
