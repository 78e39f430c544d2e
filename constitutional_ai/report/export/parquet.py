"""Results for other tools: every record as plain Parquet, or each evaluated model as a log that Inspect reads.

Parquet has a file for each kind of record, with one row a record and one column a field; fields of a record inside a
record follow its name (``prompt_id``). Conversations are lists of ``role`` and ``content``, as trainers take them. Rows
are written in groups, so that a stage never stands in memory whole.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from constitutional_ai.errors import InputError
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
from constitutional_ai.runs import layout
from constitutional_ai.runs.manifest import versions
from constitutional_ai.runs.rows import PART, load_json, naming_full_disk, read_rows
from constitutional_ai.runs.run import Run, digest_of

GROUP = 10_000
"""Rows of a group: some ten megabytes."""
ALL = "*"


class Kind(NamedTuple):
    """Records of one type, wherever in a run or an evaluation they stand."""

    name: str
    stages: str
    """Folders, with ``*`` for any name."""
    row_type: type[Any]
    each: str | None = None
    """A field with several records in it, each of which is a row, after what it belongs to."""
    file: str = layout.RECORDS


KINDS = (
    Kind("drafts", layout.PROMPTS, Draft),
    Kind("responses", layout.RESPONSES, Response),
    Kind("revisions", layout.REVISIONS, RevisionChain, "revisions"),
    Kind("comparisons", layout.COMPARISONS, Comparison),
    Kind("labels", layout.PREFERENCE_LABELS, PreferenceLabel),
    Kind("judgements", layout.PREFERENCE_LABELS, PreferenceLabel, "judgements"),
    Kind("gate", layout.PREFERENCE_LABELS, GateAnswer, file=layout.GATE),
    Kind("answers", layout.EVALUATION, Answer),
    Kind("answers", "answers", Answer),
    Kind("answer-scores", "answers/pm-*", AnswerScore),
    Kind("hhh", "hhh", HHHAnswer),
    Kind("hhh-scores", "hhh/pm-*", HHHAnswer),
    Kind("harm", "harm", HarmAnswer),
    Kind("replies", "matches/*-replies", Response),
    Kind("choices", "matches/*-choices", MatchTurn),
    Kind("harmfulness-answers", "harmfulness/*", Answer),
    Kind("harmfulness", "harmfulness", HarmScore),
    Kind("revision-scores", "revisions/pm-*", RevisionScore),
    Kind("failures", ALL, Failure, file=layout.FAILURES),
)


class Written(NamedTuple):
    file: Path
    rows: int


def to_parquet(run: Run, out: Path) -> list[Written]:
    """One file for each kind of record that ``run`` holds, and ``metrics.parquet``.

    Raises InputError when pyarrow is missing, there is nothing to export, or a line cannot be read.
    """
    _arrow()
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for kind in KINDS:
        stages = [s for s in sorted(run.folder.glob(kind.stages)) if (s / kind.file).exists()]
        if stages:
            path = out / f"{kind.name}.parquet"
            made.append(_write(path, columns(kind.row_type, kind.each), _rows(run, kind, stages)))
    if metrics := metrics_of(run):
        made.append(
            _write(out / "metrics.parquet", columns(Metric), (_flat_row(m, None, None) for m in metrics))
        )
    if not made:
        raise InputError(f"{run.folder} holds no records yet. Make some with: cai run, or cai evaluate.")
    return made


def metrics_of(run: Run) -> tuple[Metric, ...]:
    """Of an evaluation, or of a run's last stage."""
    paths = [run.folder / layout.METRICS, run.stage(layout.EVALUATION) / layout.METRICS]
    return next((found for path in paths if (found := load_json(path, tuple[Metric, ...]))), ())


def _rows(run: Run, kind: Kind, stages: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for stage in stages:
        name = str(stage.relative_to(run.folder))
        for record in read_rows(stage / kind.file, kind.row_type):
            parts = enumerate(getattr(record, kind.each), start=1) if kind.each else [(None, None)]
            for number, part in parts:
                yield {"stage": name, **_flat_row(record, number, part, skip=kind.each)}


# -- a record as columns


def columns(row_type: type[Any], each: str | None = None) -> dict[str, Any]:
    """Types of the columns by their names, as Python says them."""
    found = dict(_columns(row_type, "", skip=each))
    if each is None:
        return found
    (part, _) = get_args(typing.get_type_hints(row_type)[each])
    return found | {"number": int} | dict(_columns(part, f"{each.removesuffix('s')}_"))


def _columns(row_type: type[Any], prefix: str, skip: str | None = None) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(row_type)
    for one in fields(row_type):
        kind = _present(hints[one.name])
        if one.name == skip:
            continue
        if is_dataclass(kind):
            yield from _columns(kind, f"{prefix}{one.name}_")  # type: ignore[arg-type]
        else:
            yield prefix + one.name, kind


def _present(hint: Any) -> Any:
    """A type without its None."""
    if get_origin(hint) in (types.UnionType, typing.Union):
        rest = [part for part in get_args(hint) if part is not type(None)]
        if len(rest) == 1:
            return rest[0]
        return str if all(get_origin(part) is Literal or part is str for part in rest) else rest[0]
    return hint


def _flat_row(record: Any, number: int | None, part: Any, skip: str | None = None) -> dict[str, Any]:
    row = _flat(record, "", skip)
    if part is not None and skip is not None:
        row |= {"number": number} | _flat(part, f"{skip.removesuffix('s')}_")
    return row


def _flat(record: Any, prefix: str, skip: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for one in fields(record):
        value = getattr(record, one.name)
        if one.name == skip:
            continue
        if is_dataclass(value):
            row |= _flat(value, f"{prefix}{one.name}_")
        elif isinstance(value, tuple):
            row[prefix + one.name] = [asdict(x) if is_dataclass(x) else x for x in value]  # type: ignore[arg-type]
        else:
            row[prefix + one.name] = value
    return row


# -- Parquet


def _arrow() -> Any:
    try:
        import pyarrow  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            "Parquet is written by pyarrow, which is not here. Type: pip install 'constitutional-ai[local]'"
        ) from error
    return pyarrow


def _arrow_type(kind: Any) -> Any:
    """Of a Python type: of numbers, text, lists of these, and records."""
    pa = _arrow()
    kind = _present(kind)
    simple = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if kind in simple:
        return simple[kind]
    if get_origin(kind) is Literal:
        return _arrow_type(type(get_args(kind)[0]))
    if get_origin(kind) is tuple:
        return pa.list_(_arrow_type(get_args(kind)[0]))
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return pa.struct([(one.name, _arrow_type(hints[one.name])) for one in fields(kind)])
    raise TypeError(f"no column holds {kind}")


def _write(path: Path, kinds: Mapping[str, Any], rows: Iterable[dict[str, Any]]) -> Written:
    """Writes a file of rows whole or not at all."""
    pa = _arrow()
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    first = {} if path.name == "metrics.parquet" else {"stage": str}
    schema = pa.schema([(name, _arrow_type(kind)) for name, kind in {**first, **kinds}.items()])
    schema = schema.with_metadata({"cai": json.dumps(versions())})
    scratch, rows, count = path.with_name(path.name + PART), iter(rows), 0
    with naming_full_disk(path):
        with pq.ParquetWriter(scratch, schema, compression="zstd") as writer:
            while group := list(islice(rows, GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                count += len(group)
        scratch.replace(path)
    return Written(path, count)


# -- Inspect

STAGES = ("answers", layout.EVALUATION)
"""Where answers stand: in an evaluation, and in a run."""


def to_inspect(run: Run, out: Path) -> list[Written]:
    """One JSON log for each evaluated model, as ``inspect_ai.log.read_eval_log`` reads it.

    A sample is an answer: its id is the prompt's, its epoch the answer's number. Scores are the verdict's, and those of
    preference models; figures with their intervals are the results. Raises InputError when no model was evaluated.
    """
    stage = next((name for name in STAGES if run.manifest(name)), None)
    if stage is None:
        raise InputError(f"{run.folder} has no evaluated models. Evaluate them with: cai evaluate, or cai run.")
    out.mkdir(parents=True, exist_ok=True)
    labels: dict[str, int] = {}
    for answer in read_rows(run.stage(stage) / layout.RECORDS, Answer):
        labels[answer.model] = labels.get(answer.model, 0) + 1
    scores = _scores(run, stage)
    return [
        _log(
            out / f"{number:02d}-{re.sub(r'[^A-Za-z0-9.@_-]', '_', label)}.json",
            run,
            stage,
            label,
            count,
            scores,
        )
        for number, (label, count) in enumerate(labels.items(), start=1)
    ]


def _scores(run: Run, stage: str) -> dict[str, dict[str, float | None]]:
    """Of each preference model of an evaluation, by the answers' ids."""
    found = sorted(run.stage(stage).glob(f"pm-*/{layout.RECORDS}"))
    return {path.parent.name: {row.id: row.score for row in read_rows(path, AnswerScore)} for path in found}


def _log(
    path: Path, run: Run, stage: str, label: str, count: int, scores: Mapping[str, Mapping[str, float | None]]
) -> Written:
    of_model = (a for a in read_rows(run.stage(stage) / layout.RECORDS, Answer) if a.model == label)
    first, scratch = next(of_model), path.with_name(path.name + PART)
    with naming_full_disk(path):
        with scratch.open("w", encoding="utf-8") as file:
            # The samples come last, one by one: readers of the head stop before them.
            file.write(json.dumps(_head(run, stage, label, first, count))[:-1] + ', "samples": [')
            for number, answer in enumerate(chain([first], of_model)):
                file.write((",\n" if number else "\n") + json.dumps(_sample(answer, scores)))
            file.write("\n]}\n")
        scratch.replace(path)
    return Written(path, count)


def _head(run: Run, stage: str, label: str, first: Answer, count: int) -> dict[str, Any]:
    manifest = run.manifest(stage)
    assert manifest is not None
    began = datetime.fromisoformat(manifest.finished) - timedelta(seconds=manifest.seconds)
    metrics = {
        m.name: {"name": m.name, "value": m.value, "metadata": {"low": m.low, "high": m.high, "count": m.count}}
        for m in metrics_of(run)
        if m.model == label and m.value is not None
    }
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": began.isoformat(),
            "task": f"constitutional-ai/{stage}",
            "task_id": digest_of([stage, manifest.output]),
            "run_id": digest_of([str(run.folder), stage, manifest.output]),
            "eval_id": digest_of([label, manifest.output]),
            "dataset": {"name": first.response.prompt.source, "samples": count},
            "model": first.response.completion.model,
            "config": {},
            "packages": manifest.versions,
            "metadata": {"label": label, "config": manifest.config, "commit": manifest.commit},
        },
        "plan": {"name": "plan", "steps": []},
        "results": {
            "total_samples": count,
            "completed_samples": count,
            "scores": [{"name": "constitutional-ai", "scorer": "constitutional-ai", "metrics": metrics}],
        },
        "stats": {"started_at": began.isoformat(), "completed_at": manifest.finished, "model_usage": {}},
    }


def _sample(answer: Answer, scores: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    response, said, verdict = answer.response, answer.response.completion, answer.verdict
    message = {"role": "assistant", "content": said.text, "source": "generate", "model": said.model}
    talk = [{"role": m.role, "content": m.content} for m in response.prompt.conversation]
    found = {"objects": float(verdict.objects), "degenerate": float(verdict.degenerate is not None)}
    rewards = {"reward": answer.reward, **{name: known.get(answer.id) for name, known in scores.items()}}
    found |= {name: reward for name, reward in rewards.items() if reward is not None}
    number = response.id.rpartition(".")[2]
    return {
        "id": response.prompt.id,
        "epoch": int(number) + 1 if number.isdigit() else 1,
        "input": talk,
        "target": "",
        "messages": [*talk, message],
        "output": {
            "model": said.model,
            "choices": [
                {"message": message, "stop_reason": "stop" if said.finish_reason == "stop" else "max_tokens"}
            ],
            "usage": {
                "input_tokens": said.prompt_tokens,
                "output_tokens": said.completion_tokens,
                "total_tokens": said.prompt_tokens + said.completion_tokens,
            },
        },
        "scores": {name: {"value": value, "answer": said.text} for name, value in found.items()},
        "metadata": {
            "kind": response.prompt.kind,
            "tags": list(response.prompt.tags),
            "record": answer.id,
            "degenerate": verdict.degenerate,
        },
    }
