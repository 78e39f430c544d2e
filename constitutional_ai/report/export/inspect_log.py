"""Write each evaluated model as a log of Inspect (inspect_ai), by Inspect's own writer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalLog, write_eval_log

from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.answers import AnswerScore
from constitutional_ai.records import Answer, as_messages
from constitutional_ai.report.export import Written, metrics_of
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import naming_full_disk
from constitutional_ai.runs.run import Run, digest_of

Scores = Mapping[str, Mapping[str, float | None]]
"""The scores of each preference model by id of the answer."""


def to_inspect(run: Run, out: Path) -> list[Written]:
    """Write one log for each evaluated model, for ``inspect view`` and ``inspect_ai.log.read_eval_log``.

    A sample is an answer: its id is the prompt's, and its epoch is the answer's number. Its scores are those of the
    detectors and the preference models. The results are metrics with intervals. Raises InputError if no model was
    evaluated.
    """
    stage = next((name for name in ("answers", layout.EVALUATION) if run.manifest(name)), None)
    if stage is None:
        raise InputError(f"{run.folder} has no evaluated models. Evaluate them with: cai evaluate, or cai run.")
    out.mkdir(parents=True, exist_ok=True)
    answers: dict[str, list[Answer]] = {}
    for answer in run.stored_rows(stage, Answer):
        answers.setdefault(answer.model, []).append(answer)
    judges = sorted(path.parent.name for path in run.stage(stage).glob(f"pm-*/{layout.MANIFEST}"))
    scores = {
        name: {row.id: row.score for row in run.stored_rows(f"{stage}/{name}", AnswerScore)} for name in judges
    }
    written = []
    for model, rows in answers.items():
        log = EvalLog.model_validate(_log(run, stage, model, rows, scores))
        # The form of Inspect's own names: its viewer lists files that begin with a time, and reads the task from them.
        parts = (log.eval.created, stage, model, log.eval.task_id)
        path = out / ("_".join(re.sub(r"[^A-Za-z0-9.@]", "-", part) for part in parts) + ".eval")
        with naming_full_disk(path):
            write_eval_log(log, path)
        written.append(Written(path, len(rows)))
    return written


def _log(run: Run, stage: str, model: str, answers: Sequence[Answer], scores: Scores) -> dict[str, Any]:
    manifest, first = run.manifest(stage), answers[0].response
    assert manifest is not None
    started = (datetime.fromisoformat(manifest.finished) - timedelta(seconds=manifest.seconds)).isoformat()
    metrics = {
        m.name: {"name": m.name, "value": m.value, "metadata": {"low": m.low, "high": m.high, "count": m.count}}
        for m in metrics_of(run)
        if m.model == model and m.value is not None
    }
    return {
        "status": "success",
        "eval": {
            "created": started,
            "task": f"constitutional-ai/{stage}",
            "task_id": digest_of([stage, model, manifest.output]),
            "run_id": digest_of([str(run.folder), stage, manifest.output]),
            "eval_id": digest_of([model, manifest.output]),
            "dataset": {"name": first.prompt.source, "samples": len(answers)},
            "model": first.completion.model,
            "config": {},
            "packages": manifest.versions,
            "metadata": {"label": model, "config": manifest.config, "commit": manifest.commit},
        },
        "results": {
            "total_samples": len(answers),
            "completed_samples": len(answers),
            "scores": [{"name": "constitutional-ai", "scorer": "constitutional-ai", "metrics": metrics}],
        },
        "stats": {"started_at": started, "completed_at": manifest.finished},
        "samples": [_sample(answer, scores) for answer in answers],
    }


def _sample(answer: Answer, scores: Scores) -> dict[str, Any]:
    prompt, completion, verdict = answer.response.prompt, answer.response.completion, answer.verdict
    conversation = as_messages(prompt.conversation)
    reply = {"role": "assistant", "content": completion.text, "source": "generate", "model": completion.model}
    values = {"objects": verdict.objects, "degenerate": verdict.degenerate is not None, "reward": answer.reward}
    values |= {name: by_id.get(answer.id) for name, by_id in scores.items()}
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
            name: {"value": float(value), "answer": completion.text}
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
