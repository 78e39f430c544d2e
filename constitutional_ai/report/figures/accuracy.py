"""Build figures 4, 9, 11 and 12: how often models choose the right answer, and how well their probabilities say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from constitutional_ai.evaluation.hhh_accuracy import HHHAnswer
from constitutional_ai.metrics.calibration import Bin, Claim, bins
from constitutional_ai.report.figures import paper_numbers as paper
from constitutional_ai.report.figures.figure import SHARES, Panel, PaperFigure, Series
from constitutional_ai.report.figures.measured import (
    Evaluation,
    by_size,
    measured,
    missing,
    of_the_paper,
    over_size,
    point,
    without_empty,
)
from constitutional_ai.runs.run import Run

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
CALIBRATION = (
    "Each point is one tenth of [0, 1], at the mean of the stated probabilities in it. Dashed: perfect calibration. "
    "Bars: Wilson's 95 % intervals, which assume independent questions.",
)


def figure_4(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return accuracy on the 438 pairs (EV-1), or on our gate questions if the paper's file was not given."""
    known = any(
        m.name.startswith("hhh_accuracy.") and m.value is not None for e in evaluations for m in e.metrics
    )
    stem, where = ("hhh", "HHH comparisons") if known else ("gate", "our gate questions, not HHH")
    what = f"accuracy on {where}"
    panel = _panel("", what, evaluations, f"{stem}_accuracy", METHODS, chance=0.5)
    if behind:
        grey = [of_the_paper(METHODS[m], paper.HHH_SIZES, ys) for m, ys in paper.HHH_ACCURACY.items()]
        panel = replace(panel, series=(*panel.series, *grey))
    notes = (INTERVALS, GREY) if behind else (INTERVALS,)
    return without_empty(PaperFigure(4, (panel,), notes), what, "hhh", evaluations)


def figure_9(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return calibration (FB-9, EV-17): a panel for each method, with a line for each model."""
    claims: dict[str, dict[str, list[Claim]]] = {method: {} for method in METHODS}
    for one in evaluations:
        if "hhh" in one.unfinished:
            continue
        for row in Run(one.folder).stored_rows("hhh", HHHAnswer):
            if row.method in claims and row.probability_right is not None:
                own = claims[row.method].setdefault(one.shown(row.model), [])
                own.append(claim(row, row.probability_right))
    panels = [_calibration(METHODS[method], of_models) for method, of_models in claims.items() if of_models]
    if not panels:
        raise missing(9, "answers to HHH questions", "hhh", evaluations)
    return PaperFigure(9, tuple(panels), CALIBRATION)


def figure_11(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return accuracy on the older 221 pairs (EV-3)."""
    what = "accuracy on the original 221"
    panel = _panel("", what, evaluations, "hhh221_accuracy", METHODS, chance=0.5)
    return without_empty(PaperFigure(11, (panel,), (INTERVALS,)), what, "hhh --paper FOLDER", evaluations)


def figure_12(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return accuracy in identifying harm, and in classifying nine kinds of it (EV-4, EV-5, EV-6)."""
    panels = tuple(_panel(title, "accuracy", evaluations, stem, MODES, chance=p) for stem, title, p in TASKS)
    what = "accuracy of harm identification"
    return without_empty(PaperFigure(12, panels, (INTERVALS,)), what, "harm --paper FOLDER", evaluations)


def _panel(
    title: str,
    y_label: str,
    evaluations: Sequence[Evaluation],
    stem: str,
    methods: Mapping[str, str],
    *,
    chance: float,
) -> Panel:
    """Return a line for each method, and for each kind of model if there are several, against model size."""
    lines, series = by_size(measured(evaluations), join_named=True), []
    for method, of in methods.items():
        drawn = [line for name, group in lines if (line := over_size(name, group, f"{stem}.{method}")).points]
        if len(lines) > 1:
            series += [replace(s, name=f"{s.name}, {of}", colour=method, marker=s.name) for s in drawn]
        else:
            series += [replace(s, name=of) for s in drawn]
        series += [line for one in evaluations for line in _others(one, f"{stem}.{method}", of)]
    return Panel(title, "parameters", y_label, tuple(series), x_scale="parameters", level=(chance, "chance"))


def _others(evaluation: Evaluation, metric: str, title: str) -> list[Series]:
    """Return models that are not candidates, such as preference models, whose size is not known here."""
    known = {one.label for one in evaluation.candidates}
    others = dict.fromkeys(m.model for m in evaluation.metrics if m.name == metric and m.model not in known)
    return [
        Series(f"{shown}, {title}", (point(None, value, shown),), colour=title)
        for model in others
        if (value := evaluation.value(metric, model)) and (shown := evaluation.shown(model))
    ]


def claim(row: HHHAnswer, right: float) -> Claim:
    """Return the stated P(a is better), and whether it is."""
    return Claim(right if row.better == "a" else 1 - right, float(row.better == "a"))


def _calibration(title: str, claims: Mapping[str, Sequence[Claim]]) -> Panel:
    # The counts of several models would overlap in the drawing; the CSV has them.
    lines = tuple(
        reliability(model, bins(model, own), counts=len(claims) == 1) for model, own in claims.items()
    )
    axes = ("P(answer A is better)", "how often A is better")
    return Panel(title, *axes, lines, diagonal=True, x_span=SHARES, y_span=SHARES)


def reliability(name: str, bins: Iterable[Bin], *, counts: bool = True) -> Series:
    """Return a point for each bin that is not empty, with its count beside it if ``counts``."""
    points = [point(b.claimed, b.observed, name) for b in bins if b.observed.count]
    return Series(name, tuple(replace(p, note=f"{p.count}") if counts else p for p in points))
