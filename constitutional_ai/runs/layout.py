"""Names every stage, model role and file of a run directory, once.

It imports nothing, so that ``cai --help`` may import it.
"""

from __future__ import annotations

PROMPTS = "00-prompts"
"""Only where the recipe asks a model to draft prompts."""
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
"""In the order in which they run."""

START, SL_CAI, RL_CAI = ROLES = ("start", "sl-cai", "rl-cai")
"""The models that a run compares. A snapshot is named ``rl-cai@`` and the number of prompts it has seen."""
SECOND = "second"
"""Folder, in its stage, of the preference model that reinforcement learning never sees."""
PRETRAINING = "pretraining"
"""Folder, in its stage, of the preference model that has only been pretrained."""
SUITE = "evaluation"
"""Folder of what ``cai evaluate`` measured, beside the stages."""

RUN = "run.json"
RECIPE = "recipe.yaml"
CONSTITUTION = "constitution.yaml"
CALLS = "calls.sqlite"
"""Cached calls of the models of a run."""
REPORT_PAGE = "report.html"
LOCK = ".lock"
"""Held by the one process that writes to the run."""

MANIFEST = "stage.json"
"""Written last: a stage is complete when it exists."""
RECORDS = "records.jsonl"
FAILURES = "failures.jsonl"
DATASET = "dataset.jsonl"
"""Exactly what a trainer saw."""
METRICS = "metrics.json"
STEPS = "metrics.jsonl"
"""What a training logged, a row a step."""
WEIGHTS = "model"
"""Folder of a trained model, in its stage."""
SNAPSHOTS = "snapshots"
"""Folder of whole models that reinforcement learning left on its way, in its stage."""
DRAFTED = "prompts.jsonl"
"""In ``00-prompts``: the drafts that were kept, as prompts."""
GATE = "gate.jsonl"
"""In ``05-preference-labels``: answers to the gate's questions."""
GATE_FAILURES = f"failed-{GATE}"
PREFERENCE_MODEL_REPORT = "report.json"
"""In ``06-preference-model``: accuracy and calibration on pairs kept apart."""
HELD_OUT_PAIRS = "held_out.jsonl"
"""In ``06-preference-model``: these pairs, with their scores."""
MODELS = "models.json"
"""In ``evaluation``: the models that were measured."""
MEDIANS = "medians.jsonl"
"""In ``evaluation/answers``: of each model's answers to each prompt, the one with the median score."""
