"""Build figure 9: how often a feedback model is right, against its stated probability (FB-9, EV-17)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from constitutional_ai.evaluation.hhh_accuracy import HHHAnswer
from constitutional_ai.metrics.calibration import Claim, bins
from constitutional_ai.report.figures.accuracy import METHODS
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Point, Series
from constitutional_ai.report.figures.measured import Evaluation, missing
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import read_rows

NOTES = (
    "Each point is one tenth of [0, 1], at the mean of the stated probabilities in it. Dashed: perfect calibration. "
    "Bars: Wilson's 95 % intervals, for independent questions.",
)


def figure_9(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return a panel for each method, with a line for each model."""
    rows = [(evaluation, row) for evaluation in evaluations for row in _rows(evaluation)]
    panels = []
    for method, title in METHODS.items():
        claims: dict[str, list[Claim]] = {}
        for evaluation, row in rows:
            if row.method == method and row.probability_right is not None:
                claims.setdefault(evaluation.shown(row.model), []).append(claim(row, row.probability_right))
        if claims:
            panels.append(_panel(title, claims))
    if not panels:
        raise missing(9, "answers to HHH questions", "hhh", evaluations)
    return PaperFigure(9, tuple(panels), NOTES)


def _rows(evaluation: Evaluation) -> Iterable[HHHAnswer]:
    """Yield the models' answers; preference models state no probabilities."""
    return read_rows(evaluation.folder / "hhh" / layout.RECORDS, HHHAnswer)


def claim(row: HHHAnswer, right: float) -> Claim:
    """Return the stated P(a is better), and whether it is."""
    return Claim(right if row.better == "a" else 1 - right, float(row.better == "a"))


def _panel(title: str, claims: dict[str, list[Claim]]) -> Panel:
    lines = [Series(model, tuple(_points(model, own))) for model, own in claims.items()]
    # The counts of several models would overlap; the CSV has them.
    return Panel(
        title,
        "P(answer A is better)",
        "how often A is better",
        tuple(lines),
        diagonal=True,
        counts=len(lines) == 1,
        span=(-0.03, 1.03),
    )


def _points(model: str, claims: Sequence[Claim]) -> Iterable[Point]:
    for one in bins(model, claims):
        rate = one.observed
        if one.claimed is not None and rate.value is not None:
            yield Point(one.claimed, rate.value, rate.low, rate.high, count=rate.count, model=model)
