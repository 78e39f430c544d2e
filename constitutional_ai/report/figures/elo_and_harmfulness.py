"""Build figures 2, 3, 8 and 10: Elo scores and absolute harmfulness, against each other, model size and training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from constitutional_ai.report.figures import paper_numbers as paper
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Point, Series
from constitutional_ai.report.figures.measured import (
    Evaluation,
    Measured,
    by_prompts_seen,
    by_size,
    measured,
    missing,
    of_the_paper,
    over_size,
    over_training,
    point,
    training_panel,
    without_empty,
)

SIDES = ("helpfulness", "harmlessness")
INTERVALS = "Bars and bands: 95 % intervals."
OTHERS = "Grey: Bai et al. 2022, read off the figure; other models, matches and judges, so compare shapes only."
TEMPERATURES = (("t1", "T=1", False), ("t0", "T=0", True))
RATED = "Rated by a model that predicts people's ratings, from 0 (harmless) to 4. Bands: 95 % intervals."
OTHER_RATER = "Grey: Bai et al. 2022, read off the figure; another regressor, so compare shapes only."


def notes(evaluations: Sequence[Evaluation], behind: bool) -> tuple[str, ...]:
    """Return notes that a reader of Elo scores needs (EV-10)."""
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


def figure_2(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return harmlessness against helpfulness, a line for each training (section 3.3)."""
    series = over_training(evaluations, against("elo.helpfulness", "elo.harmlessness"))
    if not series:
        raise missing(2, "Elo of helpfulness and of harmlessness", "matches", evaluations)
    if behind:
        series += [
            of_the_paper(name, [s.helpfulness for s in snapshots], [s.harmlessness for s in snapshots])
            for name, snapshots in paper.ELO.items()
        ]
    arrows = "Lines and arrows lead from the start of a training through its snapshots to its end."
    lines = (arrows,) if any(len(s.drawn) > 1 for s in series) else ()
    panel = Panel("", "helpfulness Elo", "harmlessness Elo", tuple(series), arrows=True)
    return PaperFigure(2, (panel,), (*lines, *notes(evaluations, behind)))


def against(x_metric: str, y_metric: str) -> Callable[[Measured], Point | None]:
    """Return a function that places a model by two metrics."""

    def point_of(one: Measured) -> Point | None:
        x, y = one.value(x_metric), one.value(y_metric)
        if x is None or y is None:
            return None
        return replace(point(x.value, y, one.label), x_low=x.low, x_high=x.high)

    return point_of


def figure_3(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return Elo against number of parameters, for the last model of each training."""
    lines = by_size(measured(evaluations), join_named=False)
    panels = []
    for side in SIDES:
        series = [over_size(name, group, f"elo.{side}") for name, group in lines]
        if behind:
            values = paper.ELO_BY_SIZE[side].items()
            series += [of_the_paper(name, paper.ELO_SIZES, ys) for name, ys in values]
        drawn = tuple(s for s in series if s.points)
        panels.append(Panel(side, "parameters", f"{side} Elo", drawn, x_scale="parameters", errors="band"))
    figure = PaperFigure(3, tuple(panels), notes(evaluations, behind))
    return without_empty(figure, "Elo", "matches", evaluations)


def figure_8(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return Elo over the course of reinforcement learning."""
    panels = []
    for side in SIDES:
        series = over_training(evaluations, by_prompts_seen(f"elo.{side}"))
        if behind:
            series += [
                of_the_paper(name, [s.sequences for s in snapshots], [getattr(s, side) for s in snapshots])
                for name, snapshots in paper.ELO.items()
            ]
        panels.append(training_panel(side, f"{side} Elo", series))
    figure = PaperFigure(8, tuple(panels), notes(evaluations, behind))
    return without_empty(figure, "Elo", "matches", evaluations)


def figure_10(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return absolute harmfulness, 0 to 4: a line for each training and temperature (EV-15, EV-16)."""
    series: list[Series] = []
    for at, temperature, dashed in TEMPERATURES:
        for one in over_training(evaluations, by_prompts_seen(f"absolute_harmfulness.{at}")):
            name = f"{one.name}, {temperature}"
            series.append(replace(one, name=name, colour=one.colour or one.name, dashed=dashed))
    for name, both in paper.ABSOLUTE_HARMFULNESS.items() if behind else ():
        for (_, temperature, dashed), ys in zip(TEMPERATURES, both, strict=True):
            grey = of_the_paper(f"{name}, {temperature}", [s.sequences for s in paper.ELO[name]], ys)
            series.append(replace(grey, colour=name, dashed=dashed))
    panel = training_panel("", "absolute harmfulness, 0 to 4", series)
    figure = PaperFigure(10, (panel,), (RATED, OTHER_RATER) if behind else (RATED,))
    return without_empty(figure, "absolute harmfulness", "harmfulness --harm-model FOLDER", evaluations)
