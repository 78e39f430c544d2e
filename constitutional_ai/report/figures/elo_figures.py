"""Build figures 2, 3 and 8: Elo of helpfulness and harmlessness, against each other, model size and training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from constitutional_ai.report.figures import paper_numbers as paper
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Point, Series
from constitutional_ai.report.figures.line_series import (
    against_size,
    against_training,
    of_the_paper,
    over_size,
    over_training,
    sequences_panel,
    size_panel,
)
from constitutional_ai.report.figures.measured import (
    Evaluation,
    Measured,
    by_size,
    measured,
    missing,
    origin,
    shared,
    trainings,
)

SIDES = ("helpfulness", "harmlessness")
INTERVALS = "Bars and bands: 95 % intervals."
OTHERS = "Grey: Bai et al. 2022 read off the figure; other models, matches and judges, so compare shapes only."


def notes(evaluations: Sequence[Evaluation], behind: bool) -> tuple[str, ...]:
    """Return what a reader of Elo scores must know (EV-10)."""
    zeros = []
    for one in evaluations:
        at_zero = [m.model for m in one.metrics if m.name == "elo.harmlessness" and m.value == 0]
        zeros += [one.shown(model) for model in at_zero[:1]]
    lines = [f"Only differences of Elo have a meaning; {', '.join(zeros)} is at 0." if zeros else ""]
    if len(evaluations) > 1:
        lines.append(
            "Each evaluation has its own matches and its own zero: do not compare heights between them."
        )
    return tuple(filter(None, (*lines, INTERVALS, OTHERS if behind else "")))


def elo(side: str) -> str:
    return f"elo.{side}"


def figure_2(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return harmlessness against helpfulness, a line for each training (section 3.3)."""
    everyone = measured(evaluations)
    series = []
    for training in trainings(everyone):
        points = [point for one in training if (point := _both(one))]
        start = origin(training, everyone)
        if points:
            after = _both(start) if start else None
            colour, marker = shared(training, everyone)
            series.append(Series(training[-1].label, tuple(points), colour=colour, marker=marker, after=after))
    if not series:
        raise missing(2, "Elo of helpfulness and of harmlessness", "matches", evaluations)
    if behind:
        series += [
            of_the_paper(name, [s.helpfulness for s in snapshots], [s.harmlessness for s in snapshots])
            for name, snapshots in paper.ELO.items()
        ]
    panel = Panel("", "helpfulness Elo", "harmlessness Elo", tuple(series), arrows=True)
    arrows = "Lines and arrows lead from the start of a training over its snapshots to its end."
    lines = (arrows,) if any(len(s.points) > 1 or s.after for s in series) else ()
    return PaperFigure(2, (panel,), (*lines, *notes(evaluations, behind)))


def _both(one: Measured) -> Point | None:
    x, y = one.value(elo("helpfulness")), one.value(elo("harmlessness"))
    if x is None or x.value is None or y is None or y.value is None:
        return None
    return Point(x.value, y.value, y.low, y.high, x.low, x.high, y.count, one.label)


def figure_3(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return Elo against parameters, for the last model of each training."""
    lines = by_size(measured(evaluations), join_named=False)
    panels = []
    for side in SIDES:
        series = [over_size(name, group, elo(side)) for name, group in lines]
        if behind:
            series += [
                of_the_paper(name, paper.ELO_SIZES, values) for name, values in paper.ELO_BY_SIZE[side].items()
            ]
        panels.append(replace(size_panel(side, f"{side} Elo", series), errors="band"))
    return against_size(
        PaperFigure(3, tuple(panels), notes(evaluations, behind)), "Elo", "matches", evaluations
    )


def figure_8(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return Elo over the course of reinforcement learning."""
    panels = []
    for side in SIDES:
        series = over_training(evaluations, elo(side))
        if behind:
            series += [
                of_the_paper(name, [s.sequences for s in snapshots], [getattr(s, side) for s in snapshots])
                for name, snapshots in paper.ELO.items()
            ]
        panels.append(sequences_panel(side, f"{side} Elo", series))
    figure = PaperFigure(8, tuple(panels), notes(evaluations, behind))
    return against_training(figure, "Elo", "matches", evaluations)
