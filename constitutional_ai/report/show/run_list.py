"""List the runs below a folder: how far each is, what it was made with, and what came of it (``cai runs``).

Only small files are read, so that a hundred runs take a moment. A run that cannot be read is listed with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich.table import Column, Table
from rich.text import Text

from constitutional_ai.errors import InputError
from constitutional_ai.records import Metric
from constitutional_ai.report.page.formatting import number, with_interval
from constitutional_ai.runs import layout
from constitutional_ai.runs.about import read_about
from constitutional_ai.runs.links import check_links
from constitutional_ai.runs.rows import load_json
from constitutional_ai.runs.stored_run import StoredRun
from constitutional_ai.safe_text import visible

OBJECTIONS, REFUSALS = "objection_rate", "benign_refusal_rate"
HEAD = 8
"""Lines of ``constitution.yaml`` among which its name is looked for."""


@dataclass(frozen=True)
class ListedRun:
    """A run in the list. What is not known, or not measured, is None."""

    folder: str
    error: str | None = None
    """Why it cannot be read; nothing else is known then."""
    date: str | None = None
    """When its last stage was complete, in ISO 8601."""
    stage: str | None = None
    """The last stage that is complete."""
    going_on: str | None = None
    """The first stage that was started and is not complete."""
    models: dict[str, str] | None = None
    """Models that it starts from, by their names in the recipe."""
    constitution: str | None = None
    digest: str | None = None
    """Digest of the constitution under which answers were revised, or else pairs labelled."""
    model: str | None = None
    """The last model of the run that was evaluated; the next two fields are its metrics."""
    objections: Metric | None = None
    """Share of red-team prompts to which it objects."""
    refusals: Metric | None = None
    """Share of harmless prompts that it refuses."""


def list_runs(folder: Path) -> list[ListedRun]:
    """Return the runs below a folder, the latest first. Raises InputError if there is none."""
    runs = [_listed(path) for path in _folders(folder)]
    if not runs:
        raise InputError(f"no run below '{folder}'. Name another folder, or make one with: cai run demo")
    return sorted(runs, key=lambda run: (_time(run.date), run.folder), reverse=True)


def _time(date: str | None) -> float:
    try:
        return datetime.fromisoformat(date).timestamp() if date else 0.0
    except ValueError:
        return 0.0


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs. What is in a run is no other run, and an evaluation is none."""
    for place, folders, files in os.walk(folder):
        if layout.RUN in files:
            if {layout.RECIPE, *layout.STAGES} & {*files, *folders}:
                yield Path(place)
            folders.clear()


def _listed(folder: Path) -> ListedRun:
    try:
        check_links(folder)
        return _read(StoredRun(folder))
    except InputError as error:
        return ListedRun(str(folder), error=str(error))


def _read(run: StoredRun) -> ListedRun:
    about = read_about(run.folder)
    stages = about.get("stages", {})
    done = [stage for stage in layout.STAGES if (run.stage(stage) / layout.MANIFEST).is_file()]
    going_on = [stage for stage in layout.STAGES if stage in stages and stage not in done]
    last = run.manifest(done[-1]) if done else None
    metrics = load_json(run.stage(layout.EVALUATION) / layout.METRICS, tuple[Metric, ...]) or ()
    measured = {(m.name, m.model): m for m in metrics if layout.EVALUATION in done}
    model = next((r for r in reversed(layout.ROLES) if _known(measured.get((OBJECTIONS, r)))), None)
    config = {key: value for stage in stages.values() for key, value in stage["config"].items()}
    inputs = {key: value for stage in stages.values() for key, value in stage["inputs"].items()}
    return ListedRun(
        str(run.folder),
        date=last.finished if last else about.get("date"),
        stage=done[-1] if done else None,
        going_on=going_on[0] if going_on else None,
        models={k.removeprefix("models."): str(v) for k, v in config.items() if k.startswith("models.") and v},
        constitution=_name_of(run.folder / layout.CONSTITUTION),
        digest=inputs.get("constitution"),
        model=model,
        objections=_known(measured.get((OBJECTIONS, model or ""))),
        refusals=_known(measured.get((REFUSALS, model or ""))),
    )


def _known(metric: Metric | None) -> Metric | None:
    return metric if metric and metric.value is not None else None


def _name_of(path: Path) -> str | None:
    """Return the name in a constitution, without reading its principles, which takes longer than all else."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as stream:
        lines = (stream.readline(10_000) for _ in range(HEAD))
        line = next((line for line in lines if line.startswith("name:")), "")
    try:
        name: Any = yaml.safe_load(line)
    except yaml.YAMLError:
        return None
    return str(name["name"]) if isinstance(name, dict) and name["name"] else None


# -- for the terminal


def runs_table(runs: Iterable[ListedRun]) -> Table:
    """Return the list for the terminal."""
    titles = ("run", "date", "stage", "models", "constitution", "objects", "refuses harmless")
    table = Table(*(Column(title, overflow="fold") for title in titles), box=None, header_style="dim")
    for run in runs:
        table.add_row(*(Text(visible(cell)) for cell in _cells(run)))
    return table


def _cells(run: ListedRun) -> Iterator[str]:
    yield run.folder
    if run.error:
        yield from ("", "cannot be read", run.error)
        return
    yield (run.date or "")[:16].replace("T", " ")
    yield f"{run.stage or 'none'} complete" + (f", {run.going_on} started" if run.going_on else "")
    models = run.models or {}
    yield "\n".join(
        f"{name}: {models[name]}" for name in ("helpful", "pretrained", "feedback") if name in models
    )
    yield " ".join(filter(None, (run.constitution, run.digest)))
    yield _measured(run.model, run.objections)
    yield _measured(run.model, run.refusals)


def _measured(model: str | None, metric: Metric | None) -> str:
    return f"{model}: {with_interval(metric)} of {metric.count}" if metric else number(None)
