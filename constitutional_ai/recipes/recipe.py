"""The configuration of a run: one small class per stage. Defaults are the paper's where the paper says (docs/paper.md).

Every default is spelled out in the run's own ``recipe.yaml``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

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
from constitutional_ai.rl_cai.reinforcement.monitor import Watched
from constitutional_ai.rl_cai.reinforcement.reinforce import Reinforcing, Truncated
from constitutional_ai.sl_cai.clean import RULES, Rule
from constitutional_ai.sl_cai.revise import Style
from constitutional_ai.training.settings import LimitedFile, Sampled, Section, Training
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


class Generation(Sampled):
    shots: int = Field(default=10, ge=1)
    """Prompts that the model is shown before each draft; about ten in Bai et al. 2022a (SL-3)."""


class Responses(Sampled):
    per_helpful_prompt: int = Field(default=2, ge=1)
    """Sampled helpful answers that keep SL-CAI helpful (SL-16)."""


class Revisions(Sampled):
    rounds: int = Field(default=4, ge=1)
    """SL-8."""
    style: Style = "critiqued"
    """critiqued (the paper), direct (its ablation, SL-14), or restate (ours, for small models)."""
    format: Literal["auto", "chat", "plain"] = "auto"
    """How the model is asked: in its chat template, or in the paper's plain text. auto: as the model is."""
    clean: tuple[Rule, ...] = RULES
    """What is cleaned away, and counted: openers are cut off; revisions that are empty, identical to the answer or
    critique before them, or loop are neither built upon nor trained on (pitfall 18). Ours; the paper mentions none."""


class FinetuneTraining(Training):
    rounds: int | None = Field(default=None, ge=1)
    """SL-CAI-n learns from the revisions of rounds 1 to n (SL-17); null: of all."""
    helpful_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of sampled helpful answers, made by leaving out rows of the other side at random; null: all of both. 0.27
    in the paper (SL-16)."""


class HelpfulnessFile(LimitedFile):
    stronger_than: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Of comparisons that say how strong a preference is (``strength``), only stronger ones are used (PM-5): 0 drops
    ties, and the number of the weakest level drops that too."""


class Pretraining(HelpfulnessFile):
    file: str
    """Pairs of any kind, such as ranked answers of web forums; read as ``helpfulness`` is."""
    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    """Ten times that of the training proper in Bai et al. 2022a."""
    epochs: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class PreferenceModelTraining(Training):
    pretraining: Pretraining | None = None
    """Preference pretraining: pairs that it learns from first (PM-3). The rest is as in the training proper."""
    helpfulness: HelpfulnessFile = HelpfulnessFile()
    """People's helpfulness comparisons to mix in (PM-1): JSONL, also .gz, of our form, of hh-rlhf or of chosen and
    rejected with a prompt or messages. Limit 0 for none."""
    helpful_share: float | None = Field(default=None, gt=0, lt=1)
    """Their share, made by leaving out pairs of the other side at random; null: all of both. 0.425 in the paper."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of each source's prompts whose pairs are not trained on, but measured on (PM-6)."""
    second: bool = False
    """Train two, each on half of the prompts. RL sees the first; the second's score is watched meanwhile: where it
    falls behind, the reward is being hacked (Bai et al. 2022a, section 4.2)."""


class RLTraining(Training, Sampled):
    algorithm: Literal["rloo", "grpo", "ppo", "dpo"] = "rloo"
    """rloo or grpo, which need no value head; ppo, the paper's (RL-1); or dpo, which samples nothing and learns from
    the preference model's own pairs."""
    reward: Literal["preference_model", "feedback"] = "preference_model"
    """Whose score is the reward: the preference model's (the paper), or the feedback model's own rating (d-RLAIF)."""
    kl_weight: float = Field(default=0.001, ge=0, allow_inf_nan=False)
    """λ of RL-2; β of dpo, where 0.1 is usual."""
    answers: int = Field(default=4, ge=1)
    """Answers to each prompt. rloo and grpo measure each by the others, so they need two; the paper's PPO samples 1."""
    passes: int = Field(default=1, ge=1)
    """Steps on each batch of answers: the K of RL-2, which the paper leaves open. With 1 no ratio is ever clipped."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """ε of RL-2: of each token's ratio, and of PPO's values; under rloo, of the whole answer's ratio."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """PPO's: 1 trusts what was paid, 0 the value head. The paper does not say; γ is 1 (RL-2)."""
    value_learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    """Of PPO's value head, which learns from nothing."""
    truncated: Truncated = "score"
    """Answers cut off at max_tokens: score them as if they had ended, or mask them, which leaves them out of the loss.
    The paper does not say. The preference model learned from answers cut off likewise, so it can score them; masking
    would teach nothing to a model that mostly talks on."""
    temperature: float = Field(default=1.0, gt=0, le=10)
    prompts: int | None = Field(default=None, ge=1)
    """How many prompts, red-team and helpful ones in the proportion of the files; null uses all."""
    snapshot_every: int | None = Field(default=None, ge=1)
    """Prompts between snapshots, which are whole models (RL-6); null keeps the last model only."""
    stop_above: dict[Watched, Annotated[float, Field(ge=0)]] = Field(default={})
    """Limits of what the monitor measures: a figure that stays above its own ends the training (pitfall 28)."""

    @model_validator(mode="after")
    def _groups_fit(self) -> RLTraining:
        if "kl" in self.stop_above and not self.kl_weight:
            raise ValueError(
                "stop_above.kl needs a kl_weight above 0: without it there is no reference to measure by"
            )
        if self.algorithm == "dpo":
            idle = {"reward=feedback": self.reward == "feedback"}
            idle |= {name: bool(getattr(self, name)) for name in ("stop_above", "snapshot_every")}
            if any(idle.values()):
                raise ValueError(
                    f"dpo samples nothing, so {next(k for k in idle if idle[k])} has no meaning there"
                )
            if not self.kl_weight:
                raise ValueError(
                    "dpo needs a kl_weight above 0: without one nothing holds the policy to SL-CAI"
                )
            return self
        if self.batch_size % self.answers:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of answers ({self.answers})")
        if self.answers < 2 and self.algorithm != "ppo":
            raise ValueError(
                f"{self.algorithm} measures an answer by others to the same prompt: set answers to 2 or more"
            )
        if self.batch_size < 2:
            raise ValueError("batch_size must be 2 or more: PPO whitens advantages over a batch")
        return self

    @property
    def reinforcing(self) -> Reinforcing:
        assert self.algorithm != "dpo"
        return Reinforcing(
            algorithm=self.algorithm,
            kl_weight=self.kl_weight,
            answers=self.answers,
            passes=self.passes,
            clip=self.clip,
            gae_lambda=self.gae_lambda,
            value_learning_rate=self.value_learning_rate,
            truncated=self.truncated,
            sampling=self.sampling,
        )


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
        how = self.rl_cai
        if self.preference_model.second and (how.algorithm == "dpo" or how.reward == "feedback"):
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
