"""The names of all stages, model roles and files of a run directory.

This module imports nothing, so that ``cai --help`` may import it.
"""

from __future__ import annotations

PROMPTS = "00-prompts"
"""Exists only if the recipe drafts prompts."""
RESPONSES = "01-responses"
REVISIONS = "02-revisions"
SL_CAI_MODEL = "03-sl-cai-model"
COMPARISONS = "04-comparisons"
PREFERENCE_LABELS = "05-preference-labels"
PREFERENCE_MODEL = "06-preference-model"
RL_CAI_MODEL = "07-rl-cai-model"
EVALUATION = "08-evaluation"
STAGES = (
    PROMPTS,
    RESPONSES,
    REVISIONS,
    SL_CAI_MODEL,
    COMPARISONS,
    PREFERENCE_LABELS,
    PREFERENCE_MODEL,
    RL_CAI_MODEL,
    EVALUATION,
)
"""All stages, in the order in which they run."""

TRAININGS = (SL_CAI_MODEL, PREFERENCE_MODEL, RL_CAI_MODEL)
"""Stages that train a model."""
SHARDED = (PROMPTS, RESPONSES, REVISIONS, COMPARISONS, PREFERENCE_LABELS)
"""Stages whose records can be made in shards, on several machines."""


def earlier(stage: str) -> tuple[str, ...]:
    """Return the stages before a stage; none for a name that is no stage's."""
    return STAGES[: STAGES.index(stage)] if stage in STAGES else ()


START, SL_CAI, RL_CAI = ROLES = ("start", "sl-cai", "rl-cai")
"""The models that a run compares. A snapshot is named ``rl-cai@`` and the number of prompts it has seen."""
PROMPTED = "prompted"
"""The start with the constitution in its context, which a run measures beside them if its recipe says so."""
SECOND = "second"
"""Folder, in the stage, of the second preference model, which reinforcement learning never sees."""
PRETRAINING = "pretraining"
"""Folder, in the stage, of the preference model after pretraining only."""
SUITE = "evaluation"
"""Folder of the results of ``cai evaluate``, beside the stages."""

RUN = "run.json"
RECIPE = "recipe.yaml"
CONSTITUTION = "constitution.yaml"
CALLS = "calls.sqlite"
"""Cached model calls."""
REPORT_PAGE = "report.html"
SHARDS = "shards"
"""Folder of the shards of a stage, until they are merged: each is a run directory of its own."""
LOCK = ".lock"
"""Locked by the process that writes to the run."""
FETCHING = ".fetching"
"""Locked by the shard that copies earlier stages from a remote folder."""

MANIFEST = "stage.json"
"""Written last: a stage is complete when it exists."""
RECORDS = "records.jsonl"
FAILURES = "failures.jsonl"
LOST = "lost.jsonl"
"""Tokens of the records that failed, in all sessions: they were paid for, whatever becomes of the records."""
ITEMS = "items.jsonl"
"""The items of a shard and their places among those of all shards, in the stage's folder in a shard."""
COUNTS = "counts.json"
"""What a shard has made, lost and spent so far, for the other shards and the display, in the same folder."""
DATASET = "dataset.jsonl"
"""Exactly the rows that the trainer saw."""
METRICS = "metrics.json"
STEPS = "metrics.jsonl"
"""The log of a training, one row per step."""
WEIGHTS = "model"
"""Folder of a trained model, in its stage."""
ADAPTER = "adapter"
"""Folder of LoRA's adapter on its own, in its stage."""
CHECKPOINTS = "checkpoints"
"""Folder from which an interrupted training is resumed, in its stage. It is deleted when the stage is complete."""
TRAINED = "trained"
"""File, in the folder of a second or pretrained preference model, that says that it is complete: its digest."""
SNAPSHOTS = "snapshots"
"""Folder of the whole models that were saved during reinforcement learning, in its stage."""
DRAFTED = "prompts.jsonl"
"""Drafts that were kept, as prompts, in ``00-prompts``."""
GATE = "gate.jsonl"
"""Answers to the gate's questions, in ``05-preference-labels``."""
GATE_FAILURES = f"failed-{GATE}"
GATE_LOST = f"lost-{GATE}"
PREFERENCE_MODEL_REPORT = "report.json"
"""Accuracy and calibration on held-out pairs, in ``06-preference-model``."""
HELD_OUT_PAIRS = "held_out.jsonl"
"""Held-out pairs with their scores, in ``06-preference-model``."""
MODELS = "models.json"
"""Models that were measured, in ``evaluation``."""
MEDIANS = "medians.jsonl"
"""Answers with the median score, one for each model and prompt, in ``evaluation/answers``."""
