"""All parts of an evaluation in their order, and the figures that come of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from cai.records import Candidate, Metric
from cai.report.read import whole
from cai.runs.rows import write_whole
from cai.suite import answers, harm, harmfulness, hhh, matches, revisions
from cai.suite.suite import Suite

PARTS: dict[str, Callable[[Suite], list[Metric]]] = {
    "answers": answers.measure,
    "hhh": hhh.measure,
    "harm": harm.measure,
    "matches": matches.measure,
    "harmfulness": harmfulness.measure,
    "revisions": revisions.measure,
}
METRICS, MODELS = "metrics.json", "models.json"


def evaluate(suite: Suite, parts: Sequence[str]) -> list[Metric]:
    """Measures ``parts``, and writes ``metrics.json`` over these and all that were measured before."""
    folder = suite.run.folder
    write_whole(folder / MODELS, _json(suite.candidates))
    for part in PARTS:
        if part in parts:
            found = PARTS[part](suite)
            suite.run.stage(part).mkdir(exist_ok=True)
            write_whole(suite.run.stage(part) / METRICS, _json(found))
            write_whole(folder / METRICS, _json(read_metrics(folder)))
    return read_metrics(folder)


def read_metrics(folder: Path) -> list[Metric]:
    """Of all parts that are there, in the order of the parts."""
    found = [whole(folder / part / METRICS, tuple[Metric, ...]) or () for part in PARTS]
    return [metric for metrics in found for metric in metrics]


def read_models(folder: Path) -> list[Candidate]:
    return list(whole(folder / MODELS, tuple[Candidate, ...]) or ())


def _json(rows: Sequence[Candidate] | Sequence[Metric]) -> str:
    return json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n"
