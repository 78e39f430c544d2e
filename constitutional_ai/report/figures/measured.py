"""Read the evaluations that figures are drawn from, and group their models into lines."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.parts import read_models
from constitutional_ai.records import Candidate, Metric
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import load_json

SHOWN = {layout.START: "start", layout.SL_CAI: "SL-CAI", layout.RL_CAI: "RL-CAI"}
NAMED = "models"
"""Name of the line of models that belong to no run."""


@dataclass(frozen=True)
class Evaluation:
    """One folder that ``cai evaluate`` wrote."""

    folder: Path
    name: str
    """Put before its labels; empty if it is the only evaluation."""
    candidates: tuple[Candidate, ...]
    metrics: tuple[Metric, ...]

    def value(self, metric: str, model: str) -> Metric | None:
        """Return a metric, or None if it was not measured or has no value: that is no point, and not 0."""
        own = (m for m in self.metrics if (m.name, m.model) == (metric, model))
        return next((m for m in own if m.value is not None and math.isfinite(m.value)), None)

    def shown(self, label: str) -> str:
        """Return a label for readers, with the evaluation's name if there are several.

        ``demo:sl-cai`` becomes ``demo: SL-CAI``.
        """
        run, _, role = label.rpartition(":")
        name = ": ".join(filter(None, (run, SHOWN[role]))) if role in SHOWN else label
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
        """Name of its run, or of itself if it belongs to none."""
        return f"{self.evaluation.name} {self.candidate.run or self.candidate.label}"

    def value(self, metric: str) -> Metric | None:
        return self.evaluation.value(metric, self.candidate.label)


def read_evaluations(folders: Sequence[str | Path]) -> list[Evaluation]:
    """Read evaluations, by their own folders or by those of their runs.

    Raises InputError if a folder holds no evaluation, or two evaluations have one name.
    """
    places = [evaluation_folder(Path(folder)) for folder in folders]
    names = _names(places) if len(places) > 1 else [""]
    return [
        Evaluation(
            folder,
            name,
            tuple(read_models(folder)),
            load_json(folder / layout.METRICS, tuple[Metric, ...]) or (),
        )
        for folder, name in zip(places, names, strict=True)
    ]


def evaluation_folder(folder: Path) -> Path:
    """Return the folder itself, or its ``evaluation``. Raises InputError if neither holds an evaluation."""
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
    return InputError(
        f"figure {number} needs {what}, which was not measured in {places}. "
        f"Measure it with: cai evaluate {shlex.join([*models, *out])} --part {part}"
    )


def _argument(one: Candidate) -> str:
    """Return a model as an argument of ``cai evaluate``."""
    return one.run or (one.model if one.model == one.label else f"{one.label}={one.model}")


# -- groups


def shared(training: Sequence[Measured], everyone: Iterable[Measured]) -> tuple[str | None, str | None]:
    """Return what shares a training's colour and marker: its run and its role, if there are several runs."""
    one, runs = training[-1], {other.group for other in everyone if other.candidate.run}
    return (one.group, one.candidate.role) if len(runs) > 1 and one.group in runs else (None, None)


def trainings(models: Iterable[Measured]) -> list[list[Measured]]:
    """Group models by training, each in the order of training (RL-6)."""
    groups: dict[tuple[str, str | None, str], list[Measured]] = {}
    for one in models:
        key = (str(one.evaluation.folder), one.candidate.run, one.candidate.role)
        groups.setdefault(key, []).append(one)
    return [sorted(group, key=_place) for group in groups.values()]


def _place(one: Measured) -> float:
    """Return the prompts seen; a model without that number (DPO) comes last."""
    return math.inf if one.candidate.sequences is None else one.candidate.sequences


def origin(training: Sequence[Measured], everyone: Iterable[Measured]) -> Measured | None:
    """Return the model that a training started from: RL-CAI starts from its run's SL-CAI (RL-4)."""
    first = training[0]
    if first.candidate.role != layout.RL_CAI or first.candidate.run is None:
        return None
    wanted = (first.evaluation, first.candidate.run, layout.SL_CAI)
    return next((o for o in everyone if (o.evaluation, o.candidate.run, o.candidate.role) == wanted), None)


def by_size(models: Iterable[Measured], *, join_named: bool) -> list[tuple[str, list[Measured]]]:
    """Return lines over model size of the last model of each training, by role.

    Models that belong to no run form one line if ``join_named``. If a size occurs twice in a line, its models stand
    alone, because nothing says which of them belong together.
    """
    groups: dict[str, list[Measured]] = {}
    for training in trainings(models):
        last = training[-1]
        role = SHOWN.get(last.candidate.role, last.candidate.role)
        alone = NAMED if join_named else last.label
        groups.setdefault(role if last.candidate.run else alone, []).append(last)
    return [line for name, group in groups.items() for line in _line(name, group)]


def _line(name: str, group: Sequence[Measured]) -> list[tuple[str, list[Measured]]]:
    sizes = [one.candidate.parameters for one in group]
    if len(set(sizes)) < len(sizes) or (name == NAMED and len(group) == 1):
        return [(one.label, [one]) for one in group]
    return [(name, sorted(group, key=_size))]


def _size(one: Measured) -> int:
    return one.candidate.parameters or 0
