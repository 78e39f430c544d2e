"""Write each evaluated model as a log of Inspect (inspect_ai): one JSON file in version 2 of its log format.

Inspect's own writer needs 80 packages, takes the same fields and holds all samples in memory; here they are written one
by one. A test reads the logs with Inspect if it is installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.answers import AnswerScore
from constitutional_ai.records import Answer
from constitutional_ai.report.export import Written, metrics_of
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import PART, naming_full_disk, read_rows
from constitutional_ai.runs.run import Run, digest_of

Scores = Mapping[str, Mapping[str, float | None]]
"""The scores of each preference model by id of the answer."""


def to_inspect(run: Run, out: Path) -> list[Written]:
    """Write one log for each evaluated model, for ``inspect_ai.log.read_eval_log``.

    A sample is an answer: its id is the prompt's, and its epoch is the answer's number. Its scores are those of the
    detectors and the preference models. The results are metrics with intervals. Raises InputError if no model was
    evaluated.
    """
    stage = next((name for name in ("answers", layout.EVALUATION) if run.manifest(name)), None)
    if stage is None:
        raise InputError(f"{run.folder} has no evaluated models. Evaluate them with: cai evaluate, or cai run.")
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for answer in read_rows(run.stage(stage) / layout.RECORDS, Answer):
        counts[answer.model] = counts.get(answer.model, 0) + 1
    judges = sorted(run.stage(stage).glob(f"pm-*/{layout.RECORDS}"))
    scores = {path.parent.name: {row.id: row.score for row in read_rows(path, AnswerScore)} for path in judges}
    written = []
    for number, (model, count) in enumerate(counts.items(), start=1):
        path = out / f"{number:02d}-{re.sub(r'[^A-Za-z0-9.@_-]', '_', model)}.json"
        _write_log(path, run, stage, model, count, scores)
        written.append(Written(path, count))
    return written


def _write_log(path: Path, run: Run, stage: str, model: str, count: int, scores: Scores) -> None:
    answers = (a for a in read_rows(run.stage(stage) / layout.RECORDS, Answer) if a.model == model)
    first, scratch = next(answers), path.with_name(path.name + PART)
    with naming_full_disk(path):
        with scratch.open("w", encoding="utf-8") as file:
            # Samples come last, so that readers of the header can stop before them.
            file.write(f'{json.dumps(_header(run, stage, model, first, count))[:-1]}, "samples": [\n')
            file.write(json.dumps(_sample(first, scores)))
            for answer in answers:
                file.write(",\n" + json.dumps(_sample(answer, scores)))
            file.write("\n]}\n")
        scratch.replace(path)


def _header(run: Run, stage: str, model: str, first: Answer, count: int) -> dict[str, Any]:
    manifest = run.manifest(stage)
    assert manifest is not None
    started = (datetime.fromisoformat(manifest.finished) - timedelta(seconds=manifest.seconds)).isoformat()
    metrics = {
        m.name: {"name": m.name, "value": m.value, "metadata": {"low": m.low, "high": m.high, "count": m.count}}
        for m in metrics_of(run)
        if m.model == model and m.value is not None
    }
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": started,
            "task": f"constitutional-ai/{stage}",
            "task_id": digest_of([stage, manifest.output]),
            "run_id": digest_of([str(run.folder), stage, manifest.output]),
            "eval_id": digest_of([model, manifest.output]),
            "dataset": {"name": first.response.prompt.source, "samples": count},
            "model": first.response.completion.model,
            "config": {},
            "packages": manifest.versions,
            "metadata": {"label": model, "config": manifest.config, "commit": manifest.commit},
        },
        "plan": {"name": "plan", "steps": []},
        "results": {
            "total_samples": count,
            "completed_samples": count,
            "scores": [{"name": "constitutional-ai", "scorer": "constitutional-ai", "metrics": metrics}],
        },
        "stats": {"started_at": started, "completed_at": manifest.finished, "model_usage": {}},
    }


def _sample(answer: Answer, scores: Scores) -> dict[str, Any]:
    prompt, completion, verdict = answer.response.prompt, answer.response.completion, answer.verdict
    conversation = [{"role": m.role, "content": m.content} for m in prompt.conversation]
    reply = {"role": "assistant", "content": completion.text, "source": "generate", "model": completion.model}
    objects = None if verdict.objects is None else float(verdict.objects)
    values: dict[str, float | None] = {"objects": objects}
    values["degenerate"] = float(verdict.degenerate is not None)
    values |= {"reward": answer.reward} | {name: by_id.get(answer.id) for name, by_id in scores.items()}
    number = answer.response.id.rpartition(".")[2]
    stop = "stop" if completion.finish_reason == "stop" else "max_tokens"
    read, written = completion.prompt_tokens, completion.completion_tokens
    return {
        "id": prompt.id,
        "epoch": int(number) + 1 if number.isdigit() else 1,
        "input": conversation,
        "target": "",
        "messages": [*conversation, reply],
        "output": {
            "model": completion.model,
            "choices": [{"message": reply, "stop_reason": stop}],
            "usage": {"input_tokens": read, "output_tokens": written, "total_tokens": read + written},
        },
        "scores": {
            name: {"value": value, "answer": completion.text}
            for name, value in values.items()
            if value is not None
        },
        "metadata": {
            "kind": prompt.kind,
            "tags": list(prompt.tags),
            "record": answer.id,
            "degenerate": verdict.degenerate,
        },
    }
