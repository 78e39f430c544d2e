"""Tell which parts of an evaluation are finished: no table and no figure draws on another.

A part, such as ``matches``, is made in steps, each in a folder with its records, whose ``stage.json`` is written last.
The part's own ``metrics.json`` is written after all steps.
"""

from __future__ import annotations

import re
from pathlib import Path

from constitutional_ai.records import Metric
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import load_json

NAMES = {
    "answers": r".*",
    "hhh": r"(hhh|hhh221|gate)_.*",
    "harm": r"harm_.*",
    "matches": r"(elo|elo_error|match_ties|match_undecided|order_flips)\..*",
    "harmfulness": r"absolute_harmfulness\..*",
    "revisions": r".*\.revision_\d+",
    "adherence": r"adherence[._].*",
}
"""Patterns of the names of each part's metrics. A name belongs to the last part whose pattern it matches."""


def part_of(metric: str) -> str:
    """Return the part that measures a metric.

    >>> part_of("elo.helpfulness"), part_of("pm_score.hh"), part_of("pm_score.hh.revision_1")
    ('matches', 'answers', 'revisions')
    """
    return [part for part, names in NAMES.items() if re.fullmatch(names, metric, re.DOTALL)][-1]


def unfinished_parts(folder: Path) -> tuple[str, ...]:
    """Return the parts of the evaluation in ``folder`` that were started and are not finished."""
    measured = {part_of(metric.name) for metric in _all_metrics(folder)}
    if not (folder / layout.RUN).is_file():  # put together by hand, so that nothing is known of the steps
        measured = set(NAMES)
    return tuple(part for part in NAMES if _is_unfinished(folder / part, part in measured))


def _is_unfinished(part: Path, measured: bool) -> bool:
    if not part.is_dir():
        return False
    steps = [step for step in (part, *sorted(part.iterdir())) if (step / layout.RECORDS).is_file()]
    complete = all((step / layout.MANIFEST).is_file() for step in steps)
    # A part without metrics may have been stopped between two steps.
    return not (complete and (measured or (part / layout.METRICS).is_file()))


def finished_metrics(folder: Path) -> tuple[Metric, ...]:
    """Return the metrics of an evaluation, without those of unfinished parts, which may be of earlier records."""
    unfinished = unfinished_parts(folder)
    return tuple(metric for metric in _all_metrics(folder) if part_of(metric.name) not in unfinished)


def _all_metrics(folder: Path) -> tuple[Metric, ...]:
    return load_json(folder / layout.METRICS, tuple[Metric, ...]) or ()
