"""The recipe of a run: one section of settings for each step.

The settings of a step are defined next to its code. Defaults are the paper's where the paper gives one (docs/paper.md);
the run's own ``recipe.yaml`` lists all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

from constitutional_ai.constitutions.control import check_control
from constitutional_ai.errors import InputError
from constitutional_ai.models.load import Engine, check_name
from constitutional_ai.models.logins import keep_logins
from constitutional_ai.models.scores_only import check_writes
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod
from constitutional_ai.rl_cai.feedback.settings import Comparisons, Feedback
from constitutional_ai.rl_cai.preference_model.settings import PreferenceModelTraining
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.runs import layout
from constitutional_ai.runs.remote_folder import check_address, is_remote, working_folder
from constitutional_ai.sl_cai.settings import FinetuneTraining, Generation, Responses, Revisions
from constitutional_ai.training.settings import LimitedFile, Sampled, Section
from constitutional_ai.training.trackers import Tracker


class Models(Section):
    """The models that a run starts from."""

    helpful: str = "bundled:smollm2-135m"
    """Model that answers, criticises and revises; the paper's helpful-only RLHF model (SL-5). Reported as ``start``."""
    pretrained: str = "bundled:smollm2-135m"
    """Model that is finetuned into SL-CAI, and the base of the preference model (SL-15, PM-3)."""
    preference_model: str | None = None
    """Base of the preference model instead of ``pretrained``; any family, with its own tokenizer and chat template."""
    feedback: str = "bundled:smollm2-135m"
    """Model that compares answers (FB-3)."""
    prompts: str = "bundled:smollm2-135m"
    """Model that drafts more prompts, if ``generate`` of a file is above 0; the paper's pretrained model (SL-3)."""

    @field_validator("*")
    @classmethod
    def _known(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None:
            name = keep_logins(name)
            check_name(name)
            if info.field_name != "preference_model":  # whose base may have scored before
                check_writes(name)
        return name


class PromptFile(LimitedFile):
    """A file of prompts of one kind."""

    generate: int = Field(default=0, ge=0, le=1_000_000)
    """Number of prompts that models.prompts drafts from the file's training prompts (SL-3). Not all are kept."""


class PromptFiles(Section):
    """The files of prompts, by kind."""

    red_team: PromptFile = PromptFile()
    """Prompts that try to draw harm out of a model; answered, criticised and revised (SL-2)."""
    helpful: PromptFile = PromptFile()
    """Ordinary requests; answered and never revised (SL-4)."""
    borderline: PromptFile = PromptFile()
    """Prompts that only look harmful; treated like helpful ones. Ours, not the paper's."""


class Evaluation(Sampled):
    """Settings of the last stage, in which every model answers held-out prompts."""

    red_team: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """How many held-out red-team prompts to use; null uses all."""
    helpful: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """How many held-out helpful prompts to use; null uses all."""
    borderline: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """How many held-out borderline prompts to use; null uses all."""
    prompts: str | None = None
    """File of prompts to measure on instead of those that the files of ``prompts`` hold out, of all kinds: a test that
    no setting was chosen on. A row without a kind is a red-team prompt. Null: the held-out prompts."""
    prompted: bool = False
    """Whether to measure the start with the constitution in its context, too: the baseline that trains nothing."""


class BudgetLimits(Section):
    """Limits at which a run stops. Higher limits continue it; the records do not depend on them."""

    tokens: int | None = Field(default=None, ge=1, lt=2**63)
    """Tokens read and written by models in all stages except trainings, as in ``stage.json``; null: no limit. The
    run stops if a server does not count them."""
    hours: float | None = Field(default=None, gt=0, le=1e6)
    """Hours of all stages; the time of a killed session is not counted. Null: no limit."""


def check_feedback(models: Models, feedback: Feedback, reward: str = "preference_model") -> None:
    """Raise InputError, before the run, if the feedback model cannot do what the recipe needs."""
    method = METHODS[feedback.method]
    decides, rates = method.name == "decision", reward in ("feedback", "propositions")
    if models.feedback.startswith("anthropic:") and (
        method.needs_scores or decides or rates or feedback.predicates or feedback.format == "plain"
    ):
        raise InputError(
            f"{models.feedback} returns no log-probabilities and does not continue plain text. Set "
            "feedback.method=votes feedback.format=auto feedback.predicates=false "
            "rl_cai.reward=preference_model."
        )
    if models.feedback.startswith("server:") and feedback.format != "plain":
        _check_chat_server(models.feedback, method, reward)


def _check_chat_server(name: str, method: FeedbackMethod, reward: str) -> None:
    """Raise InputError if a server in chat format cannot do it. Letters and decisions are probed later."""
    if reward == "propositions" and not (method.reads_letters or method.name == "decision"):
        raise InputError(
            f"rl_cai.reward=propositions reads letters or decisions of {name}. Set feedback.method=multiple_choice, or "
            "decision if the server has a decision endpoint, or feedback.format=plain."
        )
    if reward == "feedback" and method.name != "decision":
        raise InputError(
            f"rl_cai.reward=feedback needs log-probabilities, and {name} returns none in chat format. "
            "Set feedback.format=plain, or feedback.method=decision if the server has a decision endpoint."
        )
    if method.needs_scores and not method.reads_letters:
        raise InputError(
            f"{name} scores no continuations in chat format. Set feedback.method=multiple_choice, which reads letters "
            "by top_logprobs, feedback.method=votes, or feedback.format=plain, which sends questions to its "
            "'completions' address as plain text."
        )


class Recipe(Section):
    """All settings of a run."""

    out: str = "runs/run"
    """Folder of the run; or an address such as s3://bucket/runs/mine, to which complete stages are copied."""
    seed: int = Field(default=0, ge=-(2**63), lt=2**63)
    """Seed of all random choices: samples, principles, order, and initial weights."""
    constitution: str = "default"
    """A file, or a built-in constitution by name."""
    control: str | None = None
    """Removes content from the constitution, for a control run: empty, shuffled, or without:PRINCIPLE
    (``constitutional_ai/constitutions/control.py``). Change only this and ``out``."""
    few_shots: str = "built-in"
    """Worked examples before critiques, revisions and feedback in the plain format (SL-11, FB-7, FB-12): built-in,
    short (critiques and revisions of one sentence, for very small models), none, or a folder with the paper's three
    files. They never precede a first response (SL-12)."""
    models: Models = Models()
    """The models that the run starts from."""
    prompts: PromptFiles = PromptFiles()
    """The files of prompts, by kind."""
    generation: Generation = Generation()
    """How more prompts are drafted, where a file's generate is above 0 (SL-3)."""
    responses: Responses = Responses()
    """The initial responses (stage 01)."""
    revisions: Revisions = Revisions()
    """Critiques and revisions (stage 02)."""
    sl_cai: FinetuneTraining = FinetuneTraining()
    """The training of SL-CAI (stage 03)."""
    comparisons: Comparisons = Comparisons()
    """The pairs of SL-CAI's answers (stage 04)."""
    feedback: Feedback = Feedback()
    """How the feedback model compares them (stage 05)."""
    preference_model: PreferenceModelTraining = PreferenceModelTraining()
    """The training of the preference model (stage 06)."""
    rl_cai: RLTraining = RLTraining()
    """Reinforcement learning (stage 07). batch_size counts answers."""
    evaluation: Evaluation = Evaluation()
    """The answers to held-out prompts (stage 08)."""
    concurrency: int = Field(default=256, ge=1, le=100_000)
    """Number of records in progress at the same time."""
    max_failures: int = Field(default=20, ge=0, le=1_000_000_000)
    """A stage stops when more records than this have failed."""
    engine: Engine | None = None
    """The engine that runs local weights; null uses the fastest that was measured here, or a default."""
    budget: BudgetLimits = BudgetLimits()
    """Limits at which the run stops."""
    cache: str | None = "run"
    """The cache of model calls, so that none is made twice: run (a file in the run's folder), a file that several
    runs may share, or null for no cache."""
    report_to: tuple[Tracker, ...] = ()
    """Trackers to which each training reports its metrics, for example [tensorboard]."""

    @field_validator("out")
    @classmethod
    def _out_has_no_login(cls, out: str) -> str:
        return check_address(out) if is_remote(out) else out

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
                f"rounds ({training.rounds}) must not be more than revisions.rounds ({revisions.rounds})"
            )
        return training

    @model_validator(mode="after")
    def _second_is_needed(self) -> Recipe:
        if self.preference_model.second and not self.rl_cai.uses_preference_model:
            raise ValueError("preference_model.second must be false, because RL uses no preference model")
        return self

    @model_validator(mode="after")
    def _shares_have_two_sides(self) -> Recipe:
        sides = {
            "sl_cai": (layout.REVISIONS, "revisions.rounds"),
            "preference_model": (layout.PREFERENCE_LABELS, "comparisons.per_prompt"),
        }
        for section, (stage, key) in sides.items():
            if stage in self.left_out and getattr(self, section).helpful_share:
                raise ValueError(f"{section}.helpful_share must be null, because {key} is 0")
        return self

    @model_validator(mode="after")
    def _revisions_are_there(self) -> Recipe:
        for key, uses, none in (
            ("comparisons.revised", self.comparisons.revised, "false"),
            ("revisions.harmless", self.revisions.harmless, "0"),
        ):
            if uses and layout.REVISIONS in self.left_out:
                raise ValueError(
                    f"{key} needs revisions: set revisions.rounds to 1 or more, or {key} to {none}"
                )
        if self.comparisons.revised and (self.comparisons.contrast or not self.comparisons.per_prompt):
            raise ValueError(
                "comparisons.revised needs the feedback model's comparisons: set it to false, or "
                "comparisons.contrast to null and comparisons.per_prompt to 1 or more"
            )
        return self

    @property
    def folder(self) -> Path:
        """Folder of the run on this machine."""
        return working_folder(self.out)

    @property
    def left_out(self) -> frozenset[str]:
        """The stages between the answers and the trainings that this recipe does not make: those of RLHF (OV-4)."""
        pairs = () if self.comparisons.per_prompt else (layout.COMPARISONS, layout.PREFERENCE_LABELS)
        return frozenset(pairs if self.revisions.rounds else (layout.REVISIONS, *pairs))

    @property
    def drafts(self) -> bool:
        """Whether prompts are to be drafted."""
        return any(
            file.generate for file in (self.prompts.red_team, self.prompts.helpful, self.prompts.borderline)
        )

    def to_yaml(self) -> str:
        """Return the text of ``recipe.yaml``, with every setting."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    settings: dict[str, Any] = {}
    for key, inner in value.items():
        settings |= flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: inner}
    return settings
