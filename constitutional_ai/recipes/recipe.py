"""The configuration of a run: one small class per stage. Defaults are the paper's where the paper says (docs/paper.md).

Every default is spelled out in the run's own ``recipe.yaml``.
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from constitutional_ai.constitutions.control import check_control
from constitutional_ai.errors import InputError
from constitutional_ai.models.load import Engine, check_name
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.rl_cai.feedback.settings import Comparisons, Feedback
from constitutional_ai.rl_cai.preference_model.settings import PreferenceModelTraining
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.sl_cai.settings import FinetuneTraining, Generation, Responses, Revisions
from constitutional_ai.training.settings import LimitedFile, Sampled, Section
from constitutional_ai.training.trackers import Tracker


class Models(Section):
    helpful: str = "bundled:smollm2-135m"
    """Answers, criticises and revises; the paper's helpful-only RLHF model (SL-5). Reported as ``start``."""
    pretrained: str = "bundled:smollm2-135m"
    """Is finetuned into SL-CAI, and carries the preference model's head (SL-15, PM-3)."""
    preference_model: str | None = None
    """Carries the preference model's head instead; any family, with its own tokenizer and chat template."""
    feedback: str = "bundled:smollm2-135m"
    """Compares answers (FB-3)."""
    prompts: str = "bundled:smollm2-135m"
    """Drafts more prompts, where ``generate`` of a file asks for some; the paper's pretrained model (SL-3)."""

    @field_validator("*")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            check_name(name)
        return name


class PromptFile(LimitedFile):
    generate: int = Field(default=0, ge=0)
    """How many more to let models.prompts draft from the file's training prompts (SL-3). Not all drafts are kept."""


class PromptFiles(Section):
    red_team: PromptFile = PromptFile()
    helpful: PromptFile = PromptFile()
    borderline: PromptFile = PromptFile()
    """Prompts that only look harmful; treated as helpful ones. Ours, not the paper's."""


class Evaluation(Sampled):
    red_team: int | None = Field(default=None, ge=1)
    """Held-out red-team prompts; null uses all. So for the others."""
    helpful: int | None = Field(default=None, ge=1)
    borderline: int | None = Field(default=None, ge=1)
    snapshots: bool = False
    """Measure RL-CAI's snapshots too, as rl-cai@PROMPTS: the paper's curves are over them (figures 2, 8 and 10)."""


class Budget(Section):
    """Where a run stops, before it has spent more; it goes on once these are raised. Changes no record."""

    tokens: int | None = Field(default=None, ge=1)
    """Read and written by models, in all stages but trainings, as ``stage.json`` counts them; null: no limit."""
    hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of all stages; those of a stage that was killed are not known. null: no limit."""


def check_feedback(models: Models, feedback: Feedback, reward: str = "preference_model") -> None:
    """Raises InputError when the feedback model cannot give what is asked of it: now, not after an hour."""
    scores = METHODS[feedback.method].needs_scores or reward == "feedback"
    if models.feedback.startswith("anthropic:") and (scores or feedback.format == "plain"):
        raise InputError(
            f"{models.feedback} gives no log-probabilities and continues no plain text. Set feedback.method=votes and "
            "leave feedback.format and rl_cai.reward as they are."
        )
    if models.feedback.startswith("server:") and feedback.format != "plain" and scores:
        if reward == "feedback":
            raise InputError(
                f"rl_cai.reward=feedback needs log-probabilities, and {models.feedback} gives none inside a chat. Set "
                "feedback.format=plain."
            )
        raise InputError(
            f"{models.feedback} gives no log-probabilities inside a chat. Set feedback.method=votes, or "
            "feedback.format=plain, so that the question goes to its 'completions' address as plain text."
        )


class Recipe(Section):
    out: str = "runs/run"
    """Folder of the run."""
    seed: int = 0
    constitution: str = "default"
    """A file, or one of ours by name."""
    control: str | None = None
    """Takes the content out of the constitution, to compare with: empty, shuffled, or without:PRINCIPLE. Change
    nothing else but out; what each means is in ``constitutional_ai/constitutions/control.py``."""
    few_shots: str = "built-in"
    """Worked examples before critiques, revisions and feedback in the plain format (SL-11, FB-7, FB-12): ours, a folder
    with the paper's three files, or none. They never stand before a first response (SL-12)."""
    models: Models = Models()
    prompts: PromptFiles = PromptFiles()
    generation: Generation = Generation()
    responses: Responses = Responses()
    revisions: Revisions = Revisions()
    sl_cai: FinetuneTraining = FinetuneTraining()
    comparisons: Comparisons = Comparisons()
    feedback: Feedback = Feedback()
    preference_model: PreferenceModelTraining = PreferenceModelTraining()
    rl_cai: RLTraining = RLTraining()
    evaluation: Evaluation = Evaluation()
    concurrency: int = Field(default=256, ge=1)
    """Records in work at once."""
    max_failures: int = Field(default=20, ge=0)
    """More failed records than this stop a stage."""
    engine: Engine | None = None
    """What weights that are here are asked on; null takes the fastest that is installed, and says which."""
    budget: Budget = Budget()
    cache: str | None = "run"
    """Where answers of models are kept, so that none is paid for twice: run, a file for several runs, or null."""
    report_to: tuple[Tracker, ...] = ()
    """Trackers that each training reports its numbers to, for example [tensorboard]; none unless named."""

    @field_validator("control", mode="before")  # YAML reads "without: tact" as a mapping
    @classmethod
    def _control_is_known(cls, control: Any) -> str | None:
        return control if control is None else check_control(str(control))

    @field_validator("sl_cai")
    @classmethod
    def _rounds_are_made(cls, training: FinetuneTraining, info: ValidationInfo) -> FinetuneTraining:
        made = info.data.get("revisions")
        if made and training.rounds and training.rounds > made.rounds:
            raise ValueError(
                f"rounds ({training.rounds}) is more than revisions.rounds ({made.rounds}): there are no more"
            )
        return training

    @model_validator(mode="after")
    def _second_is_needed(self) -> Recipe:
        if self.preference_model.second and not self.rl_cai.uses_preference_model:
            raise ValueError("preference_model.second has no meaning where RL asks no preference model")
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted keys."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: inner}
    return found
