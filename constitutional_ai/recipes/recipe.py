"""The recipe of a run: one section of settings for each step.

The settings of a step stand beside the step. Defaults are the paper's where the paper gives one (docs/paper.md); all of
them are written out in the run's own ``recipe.yaml``.
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

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
    """The models that a run starts from."""

    helpful: str = "bundled:smollm2-135m"
    """Answers, criticises and revises; the paper's helpful-only RLHF model (SL-5). Reported as ``start``."""
    pretrained: str = "bundled:smollm2-135m"
    """Is finetuned into SL-CAI, and carries the preference model's head (SL-15, PM-3)."""
    preference_model: str | None = None
    """Carries the preference model's head instead of ``pretrained``; any family, with its own tokenizer and chat
    template."""
    feedback: str = "bundled:smollm2-135m"
    """Compares answers (FB-3)."""
    prompts: str = "bundled:smollm2-135m"
    """Drafts more prompts, if ``generate`` of a file is above 0; the paper's pretrained model (SL-3)."""

    @field_validator("*")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            check_name(name)
        return name


class PromptFile(LimitedFile):
    """A file of prompts of one kind."""

    generate: int = Field(default=0, ge=0)
    """How many more prompts models.prompts drafts from the file's training prompts (SL-3). Not all drafts are kept."""


class PromptFiles(Section):
    """The files of prompts, by kind."""

    red_team: PromptFile = PromptFile()
    helpful: PromptFile = PromptFile()
    borderline: PromptFile = PromptFile()
    """Prompts that only look harmful; treated as helpful ones. Ours, not the paper's."""


class Evaluation(Sampled):
    """The last stage: every model answers held-out prompts."""

    red_team: int | None = Field(default=None, ge=1)
    """How many held-out red-team prompts to use; null uses all."""
    helpful: int | None = Field(default=None, ge=1)
    """How many held-out helpful prompts to use; null uses all."""
    borderline: int | None = Field(default=None, ge=1)
    """How many held-out borderline prompts to use; null uses all."""
    snapshots: bool = False
    """Measure RL-CAI's snapshots too, as rl-cai@PROMPTS: the paper's curves are over them (figures 2, 8 and 10)."""


class BudgetLimits(Section):
    """Limits at which a run stops; it continues once they are raised. They change no record."""

    tokens: int | None = Field(default=None, ge=1)
    """Tokens read and written by models, in all stages but trainings, as ``stage.json`` counts them; null: no limit."""
    hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Hours of all stages, except those of a stage that was killed, which are not known; null: no limit."""


def check_feedback(models: Models, feedback: Feedback, reward: str = "preference_model") -> None:
    """Raise InputError if the feedback model cannot do what the recipe needs: before the run, not hours into it."""
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
    """All settings of a run."""

    out: str = "runs/run"
    """Folder of the run."""
    seed: int = 0
    constitution: str = "default"
    """A file, or one of ours by name."""
    control: str | None = None
    """Removes content from the constitution, to make a control run: empty, shuffled, or without:PRINCIPLE. Change only
    this and ``out``. ``constitutional_ai/constitutions/control.py`` says what each means."""
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
    """Records that are worked on at the same time."""
    max_failures: int = Field(default=20, ge=0)
    """A stage stops when more records than this have failed."""
    engine: Engine | None = None
    """The engine that runs local weights; null takes the fastest that is installed, and reports which."""
    budget: BudgetLimits = BudgetLimits()
    cache: str | None = "run"
    """File of the models' answers, so that none is paid for twice: run (in the run's folder), a file that several runs
    share, or null for none."""
    report_to: tuple[Tracker, ...] = ()
    """Trackers that each training reports its numbers to, for example [tensorboard]."""

    @field_validator("control", mode="before")  # YAML reads "without: tact" as a mapping
    @classmethod
    def _control_is_known(cls, control: Any) -> str | None:
        return control if control is None else check_control(str(control))

    @field_validator("sl_cai")
    @classmethod
    def _rounds_exist(cls, training: FinetuneTraining, info: ValidationInfo) -> FinetuneTraining:
        revisions = info.data.get("revisions")
        if revisions and training.rounds and training.rounds > revisions.rounds:
            raise ValueError(
                f"rounds ({training.rounds}) is more than revisions.rounds ({revisions.rounds}): there are no more"
            )
        return training

    @model_validator(mode="after")
    def _second_is_needed(self) -> Recipe:
        if self.preference_model.second and not self.rl_cai.uses_preference_model:
            raise ValueError("preference_model.second has no meaning where RL uses no preference model")
        return self

    def to_yaml(self) -> str:
        """Return the text of ``recipe.yaml``, with every setting."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted keys."""
    settings: dict[str, Any] = {}
    for key, inner in value.items():
        settings |= flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: inner}
    return settings
