"""Write what each principle did as CSV, a row for each principle and measure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from constitutional_ai.evaluation.revision_scores import RevisionScore
from constitutional_ai.records import Metric, PreferenceLabel, RevisionChain
from constitutional_ai.report.contents import revision_scores_of
from constitutional_ai.report.export import Written
from constitutional_ai.report.page.principle_effects import PrincipleEffect, principle_effects
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import csv_text

COLUMNS = ("principle", "measure", "value", "low", "high", "count")


def write_principles(run: Run, out: Path) -> Written | None:
    """Write ``principles.csv`` of a run's complete stages; None if no principle was drawn. Raises InputError."""
    every = run.rows(layout.REVISIONS, RevisionChain) if run.manifest(layout.REVISIONS) else []
    chains = [chain for chain in every if chain.asks_for_harm]  # as in the report
    labels = (
        run.rows(layout.PREFERENCE_LABELS, PreferenceLabel) if run.manifest(layout.PREFERENCE_LABELS) else []
    )
    scores: tuple[RevisionScore, ...] = revision_scores_of(run)
    rows = [row for effect in principle_effects(chains, labels, scores) for row in _rows(effect)]
    if not rows:
        return None
    write_atomically(out / "principles.csv", csv_text([COLUMNS, *rows]))
    return Written(out / "principles.csv", len(rows))


def _rows(effect: PrincipleEffect) -> Iterator[tuple[str | float | int | None, ...]]:
    for name in ("drawn", "left_out", "labels"):
        yield effect.name, name, getattr(effect, name), None, None, None
    metrics: tuple[Metric, ...] = (
        *(effect.before, effect.after, effect.change, *effect.scores),
        *(effect.decided, effect.confidence, effect.agreement),
    )
    for metric in metrics:
        yield effect.name, metric.name, metric.value, metric.low, metric.high, metric.count
