"""The evaluations that figures are drawn from, and the candidates in them grouped into lines."""

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
"""Stands in the key for models that were named one by one."""


@dataclass(frozen=True)
class Evaluation:
    """One folder that ``cai evaluate`` wrote."""

    folder: Path
    name: str
    """Stands before its labels; empty where it is the only one."""
    candidates: tuple[Candidate, ...]
    metrics: tuple[Metric, ...]

    def value(self, metric: str, model: str) -> Metric | None:
        """None where it was not measured, or nothing could be: that is no point, and not 0."""
        found = (m for m in self.metrics if (m.name, m.model) == (metric, model))
        return next((m for m in found if m.value is not None and math.isfinite(m.value)), None)

    def shown(self, label: str) -> str:
        """A label, with the evaluation's name where there are several: ``demo:sl-cai`` is ``demo: SL-CAI``."""
        run, _, role = label.rpartition(":")
        said = ": ".join(filter(None, (run, SHOWN[role]))) if role in SHOWN else label
        return f"{self.name}: {said}" if self.name else said


@dataclass(frozen=True)
class Measured:
    """A candidate, and the evaluation that measured it."""

    evaluation: Evaluation
    candidate: Candidate

    @property
    def label(self) -> str:
        return self.evaluation.shown(self.candidate.label)

    @property
    def group(self) -> str:
        """What it belongs to: its run, where several were measured."""
        return f"{self.evaluation.name} {self.candidate.run or self.candidate.label}"

    def value(self, metric: str) -> Metric | None:
        return self.evaluation.value(metric, self.candidate.label)


def read_evaluations(folders: Sequence[str | Path]) -> list[Evaluation]:
    """Evaluations by their folders, or by the folders of runs that were evaluated.

    Raises InputError where there is none.
    """
    found = [evaluation_folder(Path(folder)) for folder in folders]
    names = _names(found) if len(found) > 1 else [""]
    return [
        Evaluation(
            folder,
            name,
            tuple(read_models(folder)),
            load_json(folder / layout.METRICS, tuple[Metric, ...]) or (),
        )
        for folder, name in zip(found, names, strict=True)
    ]


def evaluation_folder(folder: Path) -> Path:
    for place in (folder, folder / "evaluation"):
        if all((place / file).is_file() for file in (layout.METRICS, layout.MODELS)):
            return place
    raise InputError(f"no evaluation in '{folder}'. Make one with: cai evaluate {folder}")


def _names(folders: Sequence[Path]) -> list[str]:
    """The run's name for ``RUN/evaluation``, else the folder's."""
    full = [folder.resolve() for folder in folders]
    names = [path.parent.name if path.name == "evaluation" else path.name for path in full]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two evaluations are called '{twice}'. Rename the folder of one.")
    return names


def measured(evaluations: Iterable[Evaluation]) -> list[Measured]:
    return [Measured(evaluation, one) for evaluation in evaluations for one in evaluation.candidates]


def missing(number: int, what: str, part: str, evaluations: Sequence[Evaluation]) -> InputError:
    """What to type where nothing of a figure was measured; ``part`` is the part of an evaluation with its options."""
    first, places = evaluations[0], ", ".join(str(e.folder) for e in evaluations)
    asked = list(dict.fromkeys(map(_asked, first.candidates))) or ["RUN"]
    out = [] if first.folder == Path(asked[0]) / "evaluation" else ["--out", str(first.folder)]
    return InputError(
        f"figure {number} is drawn from {what}, which nobody measured in {places}. "
        f"Measure it with: cai evaluate {shlex.join([*asked, *out])} --part {part}"
    )


def _asked(one: Candidate) -> str:
    """As it is named to ``cai evaluate``."""
    return one.run or (one.model if one.model == one.label else f"{one.label}={one.model}")


# -- groups


def shared(training: Sequence[Measured], everyone: Iterable[Measured]) -> tuple[str | None, str | None]:
    """Whose colour and marker a training has: its own of one run, else the run's and its role's."""
    one, runs = training[-1], {other.group for other in everyone if other.candidate.run}
    return (one.group, one.candidate.role) if len(runs) > 1 and one.group in runs else (None, None)


def trainings(found: Iterable[Measured]) -> list[list[Measured]]:
    """The models of one training each, in the order in which they were made (RL-6)."""
    groups: dict[tuple[str, str | None, str], list[Measured]] = {}
    for one in found:
        key = (str(one.evaluation.folder), one.candidate.run, one.candidate.role)
        groups.setdefault(key, []).append(one)
    return [sorted(group, key=_place) for group in groups.values()]


def _place(one: Measured) -> float:
    """A training of which nothing says how long it was is known by its end alone (DPO)."""
    return math.inf if one.candidate.sequences is None else one.candidate.sequences


def origin(training: Sequence[Measured], everyone: Iterable[Measured]) -> Measured | None:
    """What a training started from: RL-CAI starts from its run's SL-CAI (RL-4)."""
    first = training[0]
    if first.candidate.role != layout.RL_CAI or first.candidate.run is None:
        return None
    wanted = (first.evaluation, first.candidate.run, layout.SL_CAI)
    return next((o for o in everyone if (o.evaluation, o.candidate.run, o.candidate.role) == wanted), None)


def by_size(found: Iterable[Measured], *, join_named: bool) -> list[tuple[str, list[Measured]]]:
    """The last model of each training, joined over sizes: start with start, SL-CAI with SL-CAI and so on.

    Models that were named one by one are joined where ``join_named``. Where a size occurs twice in what would be one
    line, its models stand alone: nothing says which of them belong together.
    """
    groups: dict[str, list[Measured]] = {}
    for training in trainings(found):
        last = training[-1]
        role = SHOWN.get(last.candidate.role, last.candidate.role)
        alone = NAMED if join_named else last.label
        groups.setdefault(role if last.candidate.run else alone, []).append(last)
    return [made for name, group in groups.items() for made in _line(name, group)]


def _line(name: str, group: Sequence[Measured]) -> list[tuple[str, list[Measured]]]:
    sizes = [one.candidate.parameters for one in group]
    if len(set(sizes)) < len(sizes) or (name == NAMED and len(group) == 1):
        return [(one.label, [one]) for one in group]
    return [(name, sorted(group, key=_size))]


def _size(one: Measured) -> int:
    return one.candidate.parameters or 0
