"""Run the parts of an evaluation in order, and write their metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from constitutional_ai.evaluation import adherence, answers, harm_identification, hhh_accuracy, revision_scores
from constitutional_ai.evaluation.finished import unfinished_parts
from constitutional_ai.evaluation.harmfulness import measure as harmfulness
from constitutional_ai.evaluation.matches import tournament
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.models.refused_turns import REFUSED, refused_prompts
from constitutional_ai.records import Candidate, Metric, Response
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.rows import load_json, write_atomically
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible

PARTS: dict[str, Callable[[Suite], list[Metric]]] = {
    "answers": answers.measure,
    "hhh": hhh_accuracy.measure,
    "harm": harm_identification.measure,
    "matches": tournament.measure,
    "harmfulness": harmfulness.measure,
    "revisions": revision_scores.measure,
    "adherence": adherence.measure,
}


def evaluate(suite: Suite, parts: Sequence[str]) -> list[Metric]:
    """Measure ``parts``, and return the metrics of all parts, including those measured earlier.

    Each part's metrics are written to its folder, and all metrics to ``metrics.json`` of the suite. Parts that an
    interruption left unfinished are left out, and named.
    """
    folder, suite = suite.run.folder, _with_usable_prompts(suite)
    write_atomically(folder / layout.MODELS, _json(suite.candidates))
    write_atomically(folder / layout.METRICS, _json(read_metrics(folder)))  # without a part that is repeated
    for warning in warnings(suite):
        suite.say(f"warning: {warning}")
    for part in PARTS:
        if part in parts:
            metrics = PARTS[part](suite)
            suite.run.stage(part).mkdir(exist_ok=True)
            write_atomically(suite.run.stage(part) / layout.METRICS, _json(metrics))
            write_atomically(folder / layout.METRICS, _json(read_metrics(folder)))
    for part in unfinished_parts(folder):
        suite.say(
            f"{part}: left out, because it is not finished. Finish it with the same command and --part {part}."
        )
    return read_metrics(folder)


def _with_usable_prompts(suite: Suite) -> Suite:
    """Return the suite without the prompts that a model's chat template refuses, and tell the user how many."""
    preference_models = [f"hf:{folder}" for folder in suite.preference_models.values()]
    harm = [f"hf:{suite.harmfulness_model}"] if suite.harmfulness_model else []
    names = [*(candidate.model for candidate in suite.candidates), *preference_models, *harm]
    every = [prompt for of_kind in suite.prompts.values() for prompt in of_kind]
    refused = refused_prompts(every, names)
    if not refused:
        return suite
    suite.say(f"{len(refused)} of {len(every)} prompts have {REFUSED} of a model, and are left out.")
    kept = {kind: [p for p in of_kind if p.id not in refused] for kind, of_kind in suite.prompts.items()}
    return replace(suite, prompts=kept)


def warnings(suite: Suite) -> Iterator[str]:
    """Yield a warning for every preference model of a run, and for prompts that a candidate was trained on.

    Scores of a model against which RL was trained are no evidence (EV-13; pitfalls 21 and 22).
    """
    for name, folder in suite.preference_models.items():
        if _learned_from_ai(folder):
            yield (
                f"preference model '{name}' learned from the AI's labels, and RL was trained against it, so its scores "
                "are no independent evidence."
            )
    prompts = {prompt.id for of_kind in suite.prompts.values() for prompt in of_kind}
    for run in sorted({one.run for one in suite.candidates if one.run}):
        responses = read_run(run).rows(layout.RESPONSES, Response)
        if seen := prompts & {response.prompt.id for response in responses}:
            yield f"{len(seen)} of the {len(prompts)} prompts were in the training data of {run}."


def _learned_from_ai(folder: Path) -> bool:
    """Return whether a preference model is one of a run's own, which learn from the AI's labels."""
    stage = folder.resolve().parent
    manifest = Run(stage.parent).manifest(stage.name)
    return manifest is not None and layout.PREFERENCE_LABELS in manifest.inputs


def read_metrics(folder: Path) -> list[Metric]:
    """Read the metrics of every finished part, in the order of the parts."""
    finished = [part for part in PARTS if part not in unfinished_parts(folder)]
    by_part = [load_json(folder / part / layout.METRICS, tuple[Metric, ...]) or () for part in finished]
    return [metric for metrics in by_part for metric in metrics]


def read_models(folder: Path) -> list[Candidate]:
    """Read the candidates that an evaluation measured."""
    return list(load_json(folder / layout.MODELS, tuple[Candidate, ...]) or ())


def _json(rows: Sequence[Candidate] | Sequence[Metric]) -> str:
    return json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n"


def table(metrics: Sequence[Metric]) -> Table:
    """Return a table for a terminal with a row for each metric."""
    measure = Column("measure", overflow="fold")  # a truncated name could be another measure's
    rows = Table(measure, "model", "value", "95 % interval", "count", box=None, pad_edge=False)
    for metric in metrics:
        value = "not measured" if metric.value is None else f"{metric.value:.2f}"
        known = metric.low is not None and metric.high is not None
        interval = f"{metric.low:.2f} to {metric.high:.2f}" if known else ""
        rows.add_row(metric.name, Text(visible(metric.model)), value, interval, str(metric.count))
    return rows
