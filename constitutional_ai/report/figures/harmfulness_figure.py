"""Build figure 10: absolute harmfulness, 0 to 4, over the course of reinforcement learning (EV-15, EV-16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from constitutional_ai.report.figures import paper_numbers as paper
from constitutional_ai.report.figures.figure import PaperFigure, Series
from constitutional_ai.report.figures.line_series import (
    against_training,
    of_the_paper,
    over_training,
    sequences_panel,
)
from constitutional_ai.report.figures.measured import Evaluation

TEMPERATURES = (("t1", "T=1", False), ("t0", "T=0", True))
NOTES = ("Rated by a model of people's ratings, from 0 (harmless) to 4. Bands: 95 % intervals.",)
GREY = "Grey: Bai et al. 2022, read off the figure; another regressor, so compare shapes only."


def figure_10(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return a line for each training and temperature."""
    series: list[Series] = []
    for metric, temperature, dashed in TEMPERATURES:
        for one in over_training(evaluations, f"absolute_harmfulness.{metric}"):
            series.append(
                replace(one, name=f"{one.name}, {temperature}", colour=one.colour or one.name, dashed=dashed)
            )
    if behind:
        series += [
            replace(_grey(name, temperature, values), colour=name, dashed=dashed)
            for name, both in paper.ABSOLUTE_HARMFULNESS.items()
            for (_, temperature, dashed), values in zip(TEMPERATURES, both, strict=True)
        ]
    panel = sequences_panel("", "absolute harmfulness, 0 to 4", series)
    figure = PaperFigure(10, (panel,), (*NOTES, *([GREY] if behind else [])))
    return against_training(figure, "absolute harmfulness", "harmfulness --harm-model FOLDER", evaluations)


def _grey(name: str, temperature: str, values: Sequence[float]) -> Series:
    return of_the_paper(f"{name}, {temperature}", [s.sequences for s in paper.ELO[name]], values)
