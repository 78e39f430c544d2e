"""Collect from a run what trainers elsewhere need: finetuning rows, pairs with soft labels, and prompts.

Finetuning rows and pairs are exactly those that the run trained on, once it has; before, they come from its records.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from constitutional_ai.data.row_files import read_rows
from constitutional_ai.records import Answer, PreferenceLabel, Prompt, Response, RevisionChain, as_messages
from constitutional_ai.rl_cai.preference_model import training_pairs
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.sl_cai import finetune

Rows = list[dict[str, Any]]


class TrainingRows(NamedTuple):
    """The rows of a run, each list empty where the run has none yet. Conversations are lists of messages."""

    sft: Rows
    """``id``, ``source``, ``prompt``, ``completion``: revisions, and answers to helpful prompts."""
    pairs: Rows
    """``id``, ``source``, ``prompt``, ``chosen``, ``rejected``, ``p_chosen`` from 0.5 to 1, ``tie``."""
    held_out_pairs: Rows
    prompts: Rows
    """``id``, ``source`` (the kind) and ``prompt``: all training prompts."""
    held_out_prompts: Rows
    """Prompts that the run's evaluation used."""


def training_rows(run: Run) -> TrainingRows:
    """Return the rows of a run. Raises InputError if a file of a complete stage is no longer what the stage wrote."""
    answers: Iterable[Answer] = run.stored_rows(layout.EVALUATION, Answer)
    return TrainingRows(
        sft=_of_training(run, layout.SL_CAI_MODEL) or _revised(run),
        pairs=_of_training(run, layout.PREFERENCE_MODEL)
        or training_pairs.examples(run.stored_rows(layout.PREFERENCE_LABELS, PreferenceLabel)),
        held_out_pairs=_of_training(run, layout.PREFERENCE_MODEL, layout.HELD_OUT_PAIRS),
        prompts=_prompts(row.prompt for row in run.stored_rows(layout.RESPONSES, Response)),
        held_out_prompts=_prompts(answer.response.prompt for answer in answers),
    )


def _of_training(run: Run, stage: str, file: str = layout.DATASET) -> Rows:
    """Return the rows of a finished training; none before."""
    path = run.stage(stage) / file
    if run.manifest(stage) is None or not path.exists() or not path.stat().st_size:
        return []
    run.check(stage)
    return [row for _, row in read_rows(path)]


def _revised(run: Run) -> Rows:
    """Return what a finetuning would learn from: all rounds of revision, and answers that are not revised."""
    if run.manifest(layout.REVISIONS) is None:
        return []
    helpful = (r for r in run.stored_rows(layout.RESPONSES, Response) if r.prompt.kind != "red_team")
    return finetune.examples(run.stored_rows(layout.REVISIONS, RevisionChain), helpful)


def _prompts(prompts: Iterable[Prompt]) -> Rows:
    """Return a row for each prompt; several records may be about one."""
    by_id = {p.id: {"id": p.id, "source": p.kind, "prompt": as_messages(p.conversation)} for p in prompts}
    return list(by_id.values())
