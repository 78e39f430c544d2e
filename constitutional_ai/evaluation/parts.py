"""All parts of an evaluation in their order, and the figures that come of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from constitutional_ai.data.prompts import KINDS, load_prompts, sample_prompts
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation import answers, harm_identification, hhh_accuracy, revision_scores
from constitutional_ai.evaluation.harmfulness import measure as harmfulness
from constitutional_ai.evaluation.matches import tournament
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.recipes.recipe import Feedback
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Candidate, Kind, Metric, Prompt, Response
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import load_json, write_atomically
from constitutional_ai.runs.run import Run, open_run, read_run
from constitutional_ai.runs.runner import Progress
from constitutional_ai.safe_text import visible

PARTS: dict[str, Callable[[Suite], list[Metric]]] = {
    "answers": answers.measure,
    "hhh": hhh_accuracy.measure,
    "harm": harm_identification.measure,
    "matches": tournament.measure,
    "harmfulness": harmfulness.measure,
    "revisions": revision_scores.measure,
}
METRICS, MODELS = layout.METRICS, layout.MODELS
PM_STAGE = layout.PREFERENCE_MODEL


def evaluate(suite: Suite, parts: Sequence[str]) -> list[Metric]:
    """Measures ``parts``, and writes ``metrics.json`` over these and all that were measured before."""
    folder = suite.run.folder
    write_atomically(folder / MODELS, _json(suite.candidates))
    for warning in warnings(suite):
        suite.say(f"warning: {warning}")
    for part in PARTS:
        if part in parts:
            found = PARTS[part](suite)
            suite.run.stage(part).mkdir(exist_ok=True)
            write_atomically(suite.run.stage(part) / METRICS, _json(found))
            write_atomically(folder / METRICS, _json(read_metrics(folder)))
    return read_metrics(folder)


def warnings(suite: Suite) -> Iterator[str]:
    """Where a model is measured by what it was trained on (pitfalls 21 and 22)."""
    prompts = {prompt.id for kind in KINDS for prompt in suite.prompts[kind]}
    for folder in sorted({one.run for one in suite.candidates if one.run}):
        run = read_run(folder)
        for name, pm in suite.preference_models.items():
            if pm.resolve() == (run.stage(PM_STAGE) / layout.WEIGHTS).resolve():
                yield f"RL in {folder} learned from the preference model '{name}': do not read its scores as success."
        if seen := prompts & {response.prompt.id for response in run.rows(layout.RESPONSES, Response)}:
            yield f"{len(seen)} of the {len(prompts)} prompts were trained on in {folder}."


def read_metrics(folder: Path) -> list[Metric]:
    """Of all parts that are there, in the order of the parts."""
    found = [load_json(folder / part / METRICS, tuple[Metric, ...]) or () for part in PARTS]
    return [metric for metrics in found for metric in metrics]


def read_models(folder: Path) -> list[Candidate]:
    return list(load_json(folder / MODELS, tuple[Candidate, ...]) or ())


def _json(rows: Sequence[Candidate] | Sequence[Metric]) -> str:
    return json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n"


def table(metrics: Sequence[Metric]) -> Table:
    """A line a figure, for a terminal."""
    measure = Column("measure", overflow="fold")  # a name cut short is another's
    made = Table(measure, "model", "value", "95 % interval", "count", box=None, pad_edge=False)
    for metric in metrics:
        value = "not measured" if metric.value is None else f"{metric.value:.2f}"
        known = metric.low is not None and metric.high is not None
        interval = f"{metric.low:.2f} to {metric.high:.2f}" if known else ""
        made.add_row(metric.name, Text(visible(metric.model)), value, interval, str(metric.count))
    return made


# -- what the command line says, as a suite has it


@contextmanager
def opened(folder: Path, progress: Progress, redo: str | None = None) -> Iterator[Run]:
    """An evaluation's folder, for this process alone; ``redo`` is a part, or one of its steps, to be made anew."""
    if (folder / layout.RECIPE).exists():
        raise InputError(f"{folder} is a run. Name a folder in it with --out, such as {folder / 'evaluation'}")
    with ExitStack() as stack:
        try:
            run = stack.enter_context(open_run(folder, {}, progress))
        except InputError as error:  # of a run, it speaks of the recipe's out=
            said = (
                str(error)
                .replace("set out= to another", "name another")
                .replace("Set out= to another", "Name another")
            )
            raise InputError(said.replace("place.", "place with --out.")) from error
        run = replace(run, settings_source="the command", remedy=REMEDY)
        # Also where there is nothing to forget: from now on the folder says that it is one of ours.
        run.remove_stages(
            *[step for step in run.started_stages() if redo and (step == redo or step.startswith(f"{redo}/"))]
        )
        yield run


REMEDY = "Pass --redo {stage}, or name another folder with --out."


def prompts_from(file: Path | None, limit: int | None, seed: int) -> dict[Kind, list[Prompt]]:
    """Our own held-out prompts, or all of a file; ``limit`` of each kind. Raises InputError."""
    if file is None:
        found = [prompt for kind in KINDS for prompt in load_prompts("built-in", kind).held_out]
    else:
        loaded = load_prompts(str(file), "red_team")
        found = [*loaded.train, *loaded.held_out]
    return {kind: sample_prompts([p for p in found if p.kind == kind], limit, seed) for kind in KINDS}


def judge_from(runs: Sequence[Path], judge: str | None, changes: Sequence[str]) -> tuple[str | None, Feedback]:
    """The feedback model, and how it is asked: as the first run says, or as in the paper; ``changes`` as key=value."""
    recipe = str(runs[0] / layout.RECIPE) if runs and judge is None else "paper"
    named = [f"models.feedback={judge}"] if judge else []
    asked = load_recipe(recipe, [*named, *(f"feedback.{change}" for change in changes)])
    return (judge or (asked.models.feedback if runs else None)), asked.feedback


def anchor_among(candidates: Sequence[Candidate], label: str | None) -> str:
    """The model whose Elo is 0: as named, or the first SL-CAI (EV-10), or the first of all. Raises InputError."""
    labels = [one.label for one in candidates]
    if label is None:
        return next((one.label for one in candidates if one.role == layout.SL_CAI), labels[0])
    if label not in labels:
        raise InputError(f"no model is called '{label}', to be the anchor. There are: {', '.join(labels)}.")
    return label
