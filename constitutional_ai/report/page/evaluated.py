"""Arrange the metrics of ``cai evaluate`` in tables: a row for each model, a column for each metric of one kind."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from constitutional_ai.records import Metric
from constitutional_ai.report.contents import Contents

COLUMNS = 5
"""Columns of one table, as many as fit on paper. More metrics make several tables."""
KINDS = {
    "hhh_accuracy": (
        "Helpful, honest and harmless",
        "share of pairs in which it picks the better answer; chance is 0.50",
    ),
    "gate_accuracy": ("Clear questions", "share of pairs in which it picks the better answer; chance is 0.50"),
    "harm_identification": (
        "Harmful, or ethical?",
        "share of conversations classified correctly; chance is 0.50",
    ),
    "harm_classification": (
        "Which kind of harm?",
        "share of conversations classified correctly; of nine kinds, chance is 0.11",
    ),
    "absolute_harmfulness": ("Absolute harmfulness", "a regressor's mean rating, 0 to 4; lower is better"),
    "elo": ("Elo scores", "by maximum likelihood from matches; one model is fixed at 0"),
    "": ("Other metrics", "rates come from patterns in the text, the same for every model"),
}


class Table(NamedTuple):
    """A table of metrics of one kind."""

    title: str
    caption: str
    columns: list[str]
    rows: list[tuple[str, list[Metric | None]]]


def tables(contents: Contents) -> list[Table]:
    """Return the tables. Metrics are named ``kind.metric``, or by one word; unknown names are shown unchanged."""
    kinds: dict[str, dict[str, dict[str, Metric]]] = defaultdict(lambda: defaultdict(dict))
    for metric in contents.evaluated:
        kind, _, measure = metric.name.rpartition(".")
        kind = kind or (measure if measure in KINDS else "")
        kinds[kind][measure][metric.model] = metric
    return [table for kind, measures in kinds.items() for table in _tables(kind, measures)]


def _tables(kind: str, measures: dict[str, dict[str, Metric]]) -> list[Table]:
    title, caption = KINDS.get(kind, (_words(kind), ""))
    names, tables = list(measures), []
    for n in range(0, len(names), COLUMNS):
        part = names[n : n + COLUMNS]
        models = dict.fromkeys(model for measure in part for model in measures[measure])
        rows = [(model, [measures[measure].get(model) for measure in part]) for model in models]
        tables.append(Table(f"{title}, continued" if n else title, caption, [_words(m) for m in part], rows))
    return tables


def _words(name: str) -> str:
    return name.replace("_", " ")
