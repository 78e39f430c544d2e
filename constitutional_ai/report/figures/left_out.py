"""Name the runs and models that a figure does not show, each with the reason."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from constitutional_ai.evaluation.revision_scores import label_of
from constitutional_ai.report.figures.figure import Panel, PaperFigure, short
from constitutional_ai.report.figures.measured import Evaluation, Measured, measured, trainings

PARTS = {
    **dict.fromkeys((2, 3, 8), "matches"),
    **dict.fromkeys((4, 9, 11), "hhh"),
    **dict.fromkeys((5, 6, 7), "revisions"),
    **{10: "harmfulness", 12: "harm"},
}
"""The part of an evaluation that each figure draws."""
RUNS = (5, 6, 7)
"""Figures that show runs, not models."""
LAST_MODELS = (3, 4, 11, 12)
"""Figures that show only the last model of each training."""
STEMS = {4: "hhh_accuracy", 10: "absolute_harmfulness", 11: "hhh221_accuracy"}
TASKS = ("harm_identification", "harm_classification")


class Expected(NamedTuple):
    """A model, or in figures 5 to 7 a run, that a figure should show."""

    evaluation: Evaluation
    label: str
    """Its label in the evaluation's metrics."""
    run: str | None
    """The folder of its run."""

    @property
    def shown(self) -> str:
        """Its label in the figure."""
        return self.evaluation.shown(self.label)


def name_left_out(figure: PaperFigure, evaluations: Sequence[Evaluation]) -> PaperFigure:
    """Return the figure with a sentence for each evaluation, run and model that it does not show."""
    part = PARTS[figure.number]
    halted = [one for one in evaluations if part in one.unfinished]
    finished = [one for one in evaluations if part not in one.unfinished]
    more = [
        f"{_name(one)} is left out: part {part} of {one.folder} is not finished. Run its cai evaluate again."
        for one in halted
    ]
    more += [f"{_name(one)} is left out: it has no models." for one in finished if not one.candidates]
    more += _sentences(figure, list(_expected(figure.number, finished)))
    return replace(figure, notes=(*figure.notes, *more), left_out=(*figure.left_out, *more))


def _name(one: Evaluation) -> str:
    names = dict.fromkeys(Path(c.run).name for c in one.candidates if c.run)
    runs = f"run {', '.join(map(short, names))}" if names else f"evaluation {short(one.folder.name)}"
    return f"{short(one.name)} ({runs})" if one.name and list(names) != [one.name] else runs


def _expected(number: int, evaluations: Sequence[Evaluation]) -> Iterator[Expected]:
    if number in RUNS:
        for one in evaluations:
            for run in dict.fromkeys(c.run for c in one.candidates if c.run):
                yield Expected(one, label_of(run), run)
        return
    models: list[Measured] = measured(evaluations)
    if number in LAST_MODELS:
        models = [training[-1] for training in trainings(models)]
    for each in models:
        yield Expected(each.evaluation, each.candidate.label, each.candidate.run)


def _sentences(figure: PaperFigure, expected: Sequence[Expected]) -> Iterator[str]:
    """Yield a sentence for each model that a panel lacks, or for a run of which the figure shows no model."""
    drawn = [
        {point.model for series in panel.series if series.source == "measured" for point in series.points}
        for panel in figure.panels
    ]
    absent = [one for one in expected if not any(one.shown in models for models in drawn)]
    whole = {
        (str(one.evaluation.folder), one.run)
        for one in absent
        if one.run and not any(other not in absent for other in expected if _same_run(one, other))
    }
    groups: dict[tuple[str, str], list[Expected]] = {}
    for one in absent:
        why = "; ".join(
            dict.fromkeys(_why(figure.number, p, one) for p in figure.panels if p.x_scale != "counts")
        )
        run = one.run if (str(one.evaluation.folder), one.run) in whole else None
        groups.setdefault((f"run {short(label_of(run))}" if run else short(one.shown), why), []).append(one)
    for (name, why), models in groups.items():
        of_run = name.startswith("run ") and figure.number not in RUNS
        them = f" ({', '.join(short(one.shown) for one in models)})" if of_run else ""
        yield f"{name} is left out{them}: {why}."
    for panel, models_drawn in zip(figure.panels, drawn, strict=True):
        for one in expected:
            if one not in absent and one.shown not in models_drawn:
                why = _why(figure.number, panel, one)
                yield f"{short(one.shown)} is left out of the panel '{short(panel.title, 44)}': {why}."


def _same_run(one: Expected, other: Expected) -> bool:
    return (one.evaluation.folder, one.run) == (other.evaluation.folder, other.run)


def _why(number: int, panel: Panel, one: Expected) -> str:
    """Return which of the metrics that a panel needs were not measured, or have no value."""
    reasons = []
    for stem in _stems(number, panel):
        own = [m for m in one.evaluation.metrics if m.model == one.label and _is_of(m.name, stem)]
        if not own:
            reasons.append(f"{stem} was not measured")
        elif not any(m.value is not None and math.isfinite(m.value) for m in own):
            reasons.append(f"{stem} has no value")
    if number == 4 and reasons and any(m.name.startswith("gate_accuracy.") for m in one.evaluation.metrics):
        reasons.append("gate_accuracy is of other questions")
    if reasons:
        return " and ".join(reasons)
    return "it has no readable answer by this method" if number == 9 else "it has no number for this panel"


def _stems(number: int, panel: Panel) -> tuple[str, ...]:
    """Return the beginnings of the names of the metrics that a panel needs."""
    if number == 2:
        return ("elo.helpfulness", "elo.harmlessness")
    if number in (3, 8):
        return (f"elo.{panel.title}",)
    if number in RUNS:
        return (f"pm_score.{panel.title}",)
    if number == 9:
        return ()
    if number == 12:
        return (TASKS["nine" in panel.title],)
    return ("gate_accuracy",) if "gate questions" in panel.y_label else (STEMS[number],)


def _is_of(name: str, stem: str) -> bool:
    if stem.startswith("pm_score"):
        return name.startswith(f"{stem}.") and re.search(r"\.revision_\d+$", name) is not None
    return name == stem or name.startswith(f"{stem}.")
