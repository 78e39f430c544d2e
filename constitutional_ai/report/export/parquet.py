"""Write a run's records as Parquet: a file per kind of record, a row per record, a column per field.

Fields of a nested record are prefixed with its name (``prompt_id``). Conversations are lists of ``role`` and
``content``, as trainers need them, and revisions and judgements are lists of records. Column types come from the
record's class, because they cannot be inferred if the first rows are None. Rows are written in groups, so that a stage
need not fit in memory.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.answer_predicates import PredicateReading
from constitutional_ai.evaluation.answers import AnswerScore
from constitutional_ai.evaluation.harm_identification import HarmAnswer
from constitutional_ai.evaluation.harmfulness.measure import HarmScore
from constitutional_ai.evaluation.hhh_accuracy import HHHAnswer
from constitutional_ai.evaluation.matches.game import MatchTurn
from constitutional_ai.evaluation.revision_scores import RevisionScore
from constitutional_ai.records import (
    Answer,
    Comparison,
    Draft,
    Failure,
    GateAnswer,
    Metric,
    PreferenceLabel,
    Response,
    RevisionChain,
)
from constitutional_ai.report.export import Written, metrics_of
from constitutional_ai.report.export.principles_csv import write_principles
from constitutional_ai.runs import layout
from constitutional_ai.runs.manifest import versions
from constitutional_ai.runs.rows import replacing
from constitutional_ai.runs.run import Run

GROUP = 10_000
"""Number of rows in a group, about ten megabytes."""


class Kind(NamedTuple):
    """The records of one type, in all folders of a run or an evaluation that have them."""

    name: str
    stages: str
    """Pattern of the folders, for ``glob``."""
    row_type: type[Any]
    file: str = layout.RECORDS


KINDS = (
    Kind("drafts", layout.PROMPTS, Draft),
    Kind("responses", layout.RESPONSES, Response),
    Kind("revisions", layout.REVISIONS, RevisionChain),
    Kind("comparisons", layout.COMPARISONS, Comparison),
    Kind("labels", layout.PREFERENCE_LABELS, PreferenceLabel),
    Kind("gate", layout.PREFERENCE_LABELS, GateAnswer, file=layout.GATE),
    Kind("answers", layout.EVALUATION, Answer),
    Kind("answers", "answers", Answer),
    Kind("answer-scores", "answers/pm-*", AnswerScore),
    Kind("predicates", "answers/predicates", PredicateReading),
    Kind("hhh", "hhh", HHHAnswer),
    Kind("hhh-scores", "hhh/pm-*", HHHAnswer),
    Kind("harm", "harm", HarmAnswer),
    Kind("replies", "matches/*-replies", Response),
    Kind("choices", "matches/*-choices", MatchTurn),
    Kind("harmfulness-answers", "harmfulness/*", Answer),
    Kind("harmfulness", "harmfulness", HarmScore),
    Kind("revision-scores", "revisions/pm-*", RevisionScore),
    Kind("failures", "*", Failure, file=layout.FAILURES),
)


def to_parquet(run: Run, out: Path) -> list[Written]:
    """Write one file for each kind of record that ``run`` holds, ``metrics.parquet`` and ``principles.csv``.

    Raises InputError if there is nothing to export, or a line cannot be parsed.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in KINDS:
        stages = [s for s in sorted(run.folder.glob(kind.stages)) if (s / kind.file).exists()]
        if stages:
            schema = pa.schema([("stage", pa.string()), *schema_of(kind.row_type)])
            written.append(_write(out / f"{kind.name}.parquet", schema, _rows(run, kind, stages)))
    if metrics := metrics_of(run):
        written.append(_write(out / "metrics.parquet", schema_of(Metric), map(asdict, metrics)))
    if principles := write_principles(run, out):
        written.append(principles)
    if not written:
        raise InputError(f"{run.folder} has no records yet. Make some with: cai run, or cai evaluate.")
    return written


def _rows(run: Run, kind: Kind, stages: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for stage in stages:
        name = str(stage.relative_to(run.folder))
        for record in run.stored_rows(name, kind.row_type, kind.file):
            yield {"stage": name, **asdict(record)}


def schema_of(row_type: type[Any]) -> Any:
    """Return the Arrow schema of a record, in which a nested record is a struct."""
    return pa.schema(list(_arrow_type(row_type)))


def _arrow_type(hint: Any) -> Any:
    """Return the Arrow type of a number, text, a list of these, or a record; each may be None."""
    if get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Literal:
        hint = type(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(get_args(hint)[0]))
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return pa.struct([(one.name, _arrow_type(hints[one.name])) for one in fields(hint)])
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[hint]


def _write(path: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> Written:
    """Write a file completely or not at all. Without rows, the file has columns only."""
    flat = _flat(schema.empty_table()).schema.with_metadata({"cai": json.dumps(versions())})
    rows, count = iter(rows), 0
    with replacing(path) as scratch, pq.ParquetWriter(scratch, flat, compression="zstd") as writer:
        while group := list(islice(rows, GROUP)):
            writer.write_table(_flat(pa.Table.from_pylist(group, schema=schema)).cast(flat))
            count += len(group)
    return Written(path, count)


def _flat(table: Any) -> Any:
    """Return the table with structs flattened to columns: ``prompt.id`` becomes ``prompt_id``."""
    while any(pa.types.is_struct(column.type) for column in table.schema):
        table = table.flatten()
    return table.rename_columns([name.replace(".", "_") for name in table.column_names])
