"""Read the evaluations for figures, and group their models into lines over size and over training."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.finished import finished_metrics, unfinished_parts
from constitutional_ai.evaluation.parts import read_models
from constitutional_ai.records import Candidate, Metric
from constitutional_ai.report.contents import LABEL
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Point, Series
from constitutional_ai.runs import layout

NAMED = "models"
"""The name of the line of models that belong to no run."""
NO_PLACE = {
    "parameters": "against the number of parameters, which is known for none of {}. Evaluate models whose weights "
    "are on this machine: hf:FOLDER",
    "sequences": "over the course of RL, which trained none of {}. Evaluate a run with snapshots: set "
    "rl_cai.snapshot_every, finish the run, then run: cai evaluate RUN",
}
"""The reason why no point of a figure can be placed on its x axis, by the scale of the axis."""


@dataclass(frozen=True)
class Evaluation:
    """One folder that ``cai evaluate`` wrote."""

    folder: Path
    name: str
    """Prefix of its labels; empty if it is the only evaluation."""
    candidates: tuple[Candidate, ...]
    metrics: tuple[Metric, ...]
    """Metrics of the finished parts."""
    unfinished: tuple[str, ...] = ()
    """Parts that were started and are not finished."""

    def value(self, metric: str, model: str) -> Metric | None:
        """Return a metric, or None if it was not measured or has no value; there is then no point, rather than 0."""
        own = (m for m in self.metrics if (m.name, m.model) == (metric, model))
        return next((m for m in own if m.value is not None and math.isfinite(m.value)), None)

    def shown(self, label: str) -> str:
        """Return a label for readers, with the evaluation's name if there are several.

        ``demo:sl-cai`` becomes ``demo: SL-CAI``.
        """
        run, _, role = label.rpartition(":")
        name = ": ".join(filter(None, (run, LABEL[role]))) if role in LABEL else label
        return f"{self.name}: {name}" if self.name else name


@dataclass(frozen=True)
class Measured:
    """A model, and the evaluation that measured it."""

    evaluation: Evaluation
    candidate: Candidate

    @property
    def label(self) -> str:
        return self.evaluation.shown(self.candidate.label)

    @property
    def group(self) -> str:
        """The name of its run, or its own if it belongs to none."""
        return f"{self.evaluation.name} {self.candidate.run or self.candidate.label}"

    def value(self, metric: str) -> Metric | None:
        return self.evaluation.value(metric, self.candidate.label)


def read_evaluations(folders: Sequence[str | Path]) -> list[Evaluation]:
    """Read evaluations from their own folders or those of their runs.

    Raises InputError if a folder has no evaluation, or two evaluations have the same name.
    """
    places = [evaluation_folder(Path(folder)) for folder in folders]
    names = _names(places) if len(places) > 1 else [""]
    return [
        Evaluation(
            folder,
            name,
            tuple(read_models(folder)),
            finished_metrics(folder),
            unfinished_parts(folder),
        )
        for folder, name in zip(places, names, strict=True)
    ]


def evaluation_folder(folder: Path) -> Path:
    """Return the folder itself, or its ``evaluation``. Raises InputError if neither is an evaluation."""
    for place in (folder, folder / layout.SUITE):
        if all((place / file).is_file() for file in (layout.METRICS, layout.MODELS)):
            return place
    raise InputError(f"no evaluation in '{folder}'. Make one with: cai evaluate {folder}")


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the run's name for ``RUN/evaluation``, otherwise the folder's."""
    full = [folder.resolve() for folder in folders]
    names = [path.parent.name if path.name == layout.SUITE else path.name for path in full]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two evaluations are called '{twice}'. Rename the folder of one.")
    return names


def measured(evaluations: Iterable[Evaluation]) -> list[Measured]:
    return [Measured(evaluation, one) for evaluation in evaluations for one in evaluation.candidates]


def missing(number: int, what: str, part: str, evaluations: Sequence[Evaluation]) -> InputError:
    """Return the error for a figure without data; ``part`` is the part of an evaluation to run, with its options."""
    first, places = evaluations[0], ", ".join(str(e.folder) for e in evaluations)
    models = list(dict.fromkeys(map(_argument, first.candidates))) or ["RUN"]
    out = [] if first.folder == Path(models[0]) / layout.SUITE else ["--out", str(first.folder)]
    name = part.partition(" ")[0]
    halted = [str(e.folder) for e in evaluations if name in e.unfinished]
    why = f" Part {name} is not finished in {', '.join(halted)}." if halted else ""
    return InputError(
        f"figure {number} needs {what}, which was not measured in {places}.{why} "
        f"Measure it with: cai evaluate {shlex.join([*models, *out])} --part {part}"
    )


def _argument(one: Candidate) -> str:
    """Return a model as an argument of ``cai evaluate``."""
    return one.run or (one.model if one.model == one.label else f"{one.label}={one.model}")


# -- groups


def shared(training: Sequence[Measured], everyone: Iterable[Measured]) -> tuple[str | None, str | None]:
    """Return the keys of a training's colour and marker: its run and its role, if there are several runs."""
    one, runs = training[-1], {other.group for other in everyone if other.candidate.run}
    return (one.group, one.candidate.role) if len(runs) > 1 and one.group in runs else (None, None)


def trainings(models: Iterable[Measured]) -> list[list[Measured]]:
    """Group models by training, each group in the order of training (RL-6)."""
    groups: dict[tuple[str, str | None, str], list[Measured]] = {}
    for one in models:
        key = (str(one.evaluation.folder), one.candidate.run, one.candidate.role)
        groups.setdefault(key, []).append(one)
    return [sorted(group, key=_place) for group in groups.values()]


def _place(one: Measured) -> float:
    """Return the number of prompts seen; a model without it (DPO) comes last."""
    return math.inf if one.candidate.sequences is None else one.candidate.sequences


def origin(training: Sequence[Measured], everyone: Iterable[Measured]) -> Measured | None:
    """Return the model from which a training started: RL-CAI starts from its run's SL-CAI (RL-4)."""
    first = training[0]
    if first.candidate.role != layout.RL_CAI or first.candidate.run is None:
        return None
    wanted = (first.evaluation, first.candidate.run, layout.SL_CAI)
    return next((o for o in everyone if (o.evaluation, o.candidate.run, o.candidate.role) == wanted), None)


def by_size(models: Iterable[Measured], *, join_named: bool) -> list[tuple[str, list[Measured]]]:
    """Return a line over model size for each role, with the last model of each training.

    Models that belong to no run form one line if ``join_named``. If a line has two models of one size, its models are
    not joined, because it is unknown which of them belong together.
    """
    groups: dict[str, list[Measured]] = {}
    for training in trainings(models):
        last = training[-1]
        role = last.candidate.label.rpartition(":")[2].partition("@")[0]
        alone = NAMED if join_named else last.label
        groups.setdefault(LABEL.get(role, role) if last.candidate.run else alone, []).append(last)
    return [line for name, group in groups.items() for line in _line(name, group)]


def _line(name: str, group: Sequence[Measured]) -> list[tuple[str, list[Measured]]]:
    sizes = [one.candidate.parameters for one in group]
    if len(set(sizes)) < len(sizes) or (name == NAMED and len(group) == 1):
        return [(one.label, [one]) for one in group]
    return [(name, sorted(group, key=lambda one: one.candidate.parameters or 0))]


# -- lines


def point(x: float | None, metric: Metric, label: str) -> Point:
    """Return the point of a metric that has a value."""
    assert metric.value is not None
    return Point(x, metric.value, metric.low, metric.high, count=metric.count, model=label)


def of_the_paper(name: str, xs: Sequence[float], ys: Sequence[float | None]) -> Series:
    """Return the paper's numbers as a series without intervals and counts."""
    points = tuple(Point(x, y) for x, y in zip(xs, ys, strict=True) if y is not None)
    return Series(f"paper: {name}", points, "paper")


def over_size(name: str, group: Iterable[Measured], metric: str) -> Series:
    """Return a line over the number of parameters, with a point for each model whose ``metric`` was measured."""
    values = [(one, one.value(metric)) for one in group]
    return Series(name, tuple(point(one.candidate.parameters, v, one.label) for one, v in values if v))


def over_training(
    evaluations: Sequence[Evaluation], point_of: Callable[[Measured], Point | None]
) -> list[Series]:
    """Return a line for each training, from the model that it started from.

    ``point_of`` returns a model's point, or None if it was not measured.
    """
    everyone, lines = measured(evaluations), []
    for training in trainings(everyone):
        start = origin(training, everyone)
        if points := tuple(at for one in training if (at := point_of(one))):
            colour, marker = shared(training, everyone)
            after = point_of(start) if start else None
            lines.append(Series(training[-1].label, points, colour=colour, marker=marker, after=after))
    return lines


def by_prompts_seen(metric: str) -> Callable[[Measured], Point | None]:
    """Return a function that places a model's ``metric`` over the prompts that it saw in RL."""

    def point_of(one: Measured) -> Point | None:
        value, seen = one.value(metric), one.candidate.sequences or (0 if one.candidate.run else None)
        return point(seen, value, one.label) if value else None

    return point_of


def training_panel(title: str, y_label: str, series: Iterable[Series]) -> Panel:
    """Return a panel over the course of RL."""
    return Panel(title, "prompts seen in RL", y_label, tuple(series), x_scale="sequences", errors="band")


def without_empty(figure: PaperFigure, what: str, part: str, evaluations: Sequence[Evaluation]) -> PaperFigure:
    """Return the figure without panels that have no measured point on their x axis; a note names them.

    Raises InputError if nothing was measured, or no measured point has a place on the x axis.
    """
    scale = figure.panels[0].x_scale

    def placed(panel: Panel) -> bool:
        """Return whether a point has a place: over training, one that RL trained."""
        points = [one for series in panel.series if series.source == "measured" for one in series.points]
        return any(one.x if scale == "sequences" else one.x is not None for one in points)

    models = [one.model for _, series, one in figure.points() if series.source == "measured"]
    if not models:
        raise missing(figure.number, what, part, evaluations)
    if not (full := tuple(filter(placed, figure.panels))):
        why = NO_PLACE[scale].format(", ".join(dict.fromkeys(models)))
        raise InputError(f"figure {figure.number} is drawn {why}")
    gone = [panel.title for panel in figure.panels if panel not in full]
    left_out = (f"Not measured: {', '.join(gone)}.",) if gone else ()
    return replace(figure, panels=full, notes=(*figure.notes, *left_out), left_out=left_out)
