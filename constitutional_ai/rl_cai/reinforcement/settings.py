"""Settings of reinforcement learning (section 4.2; RL-1 to RL-7)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from constitutional_ai.rl_cai.reinforcement.algorithms import ALGORITHMS, Algorithm, AlgorithmName
from constitutional_ai.rl_cai.reinforcement.monitor import Watched
from constitutional_ai.training.settings import Sampled, Training

RewardName = Literal["preference_model", "feedback", "groupwise", "propositions"]


class RLTraining(Training, Sampled):
    """Settings of the training of RL-CAI. ``batch_size`` counts answers."""

    algorithm: AlgorithmName = "rloo"
    """rloo or grpo, which have no value head; ppo, the paper's (RL-1); or dpo, which samples nothing and learns from
    the preference model's pairs."""
    reward: RewardName = "preference_model"
    """Source of the reward: the preference model's score (the paper); or without one, by the feedback model: feedback,
    its rating of each answer (d-RLAIF); groupwise, how often an answer wins against others to the same prompt; or
    propositions, what is true of it of what the constitution wants."""
    neighbours: int = Field(default=2, ge=1, le=10_000)
    """Number of the next answers in a circle that groupwise compares each answer with. 2 are all pairs of 4 answers."""
    kl_weight: float = Field(default=0.001, ge=0, le=1e6)
    """Weight of the KL divergence from SL-CAI in the reward: λ of RL-2; β of dpo, where 0.1 is usual. 0: none."""
    answers: int = Field(default=4, ge=1, le=10_000)
    """Answers per prompt. rloo and grpo compare them with each other, so they need two; the paper's PPO uses 1."""
    passes: int = Field(default=1, ge=1, le=1000)
    """Number of passes over each batch of answers: the K of RL-2, which the paper does not give. With 1, no ratio is
    clipped."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """ε of RL-2: clips the ratio of each token, and PPO's values; under rloo, the ratio of the whole answer."""
    temperature: float = Field(default=1.0, gt=0, le=10)
    """Sampling temperature of the answers, above 0 and to 10; 1 in the paper (SL-10)."""
    prompts: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Number of prompts, red-team and harmless in the proportion of ``helpful_share``; null uses all."""
    helpful_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of helpful and borderline prompts among the prompts of RL; null: as many as the files have. 0.475 in the
    paper (RL-5)."""
    snapshot_every: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Number of prompts between snapshots, which are whole models (RL-6); null saves only the last model."""
    refusal_gate: Literal["warn", "stop"] = "stop"
    """What happens if the reward prefers refusals of harmless prompts more often than not (pitfall 28), or if a
    preference model prefers compliance where its labels prefer objections: warn, or stop before the training. Ours."""
    stop_above: dict[Watched, Annotated[float, Field(ge=0)]] = Field(default={})
    """Limits of the monitor's figures (RL-7): the training ends when one stays above its limit (pitfall 28). Example:
    {refuses_harmless: 0.2}."""

    @property
    def method(self) -> Algorithm:
        return ALGORITHMS[self.algorithm]

    @property
    def uses_preference_model(self) -> bool:
        return self.method.samples and self.reward == "preference_model"

    @property
    def asks_feedback_model(self) -> bool:
        """Whether the feedback model gives the reward."""
        return self.method.samples and self.reward != "preference_model"

    @property
    def prompts_per_batch(self) -> int:
        return self.batch_size // self.answers

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> RLTraining:
        if "kl" in self.stop_above and not self.kl_weight:
            raise ValueError(
                "stop_above.kl needs a kl_weight above 0, because there is no reference without it"
            )
        if self.method.samples:
            self._check_batches()
        else:
            self._check_pairs()
        return self

    def _check_pairs(self) -> None:
        """Raise ValueError for settings that need sampled answers."""
        idle = {f"reward={self.reward}": self.reward != "preference_model"}
        idle |= {name: bool(getattr(self, name)) for name in ("stop_above", "snapshot_every")}
        if any(idle.values()):
            raise ValueError(f"{self.algorithm} samples no answers: remove {next(k for k in idle if idle[k])}")
        if not self.kl_weight:
            raise ValueError(f"{self.algorithm} needs a kl_weight above 0, which holds the policy to SL-CAI")

    def _check_batches(self) -> None:
        """Raise ValueError if batches do not consist of whole groups of answers."""
        if self.batch_size % self.answers:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of answers ({self.answers})")
        if self.answers < 2 and self.method.needs_group:
            raise ValueError(f"{self.algorithm} compares answers to the same prompt: set answers to 2 or more")
        if self.answers < 2 and self.reward == "groupwise":
            raise ValueError("reward=groupwise compares answers to the same prompt: set answers to 2 or more")
        if self.batch_size < 2:
            raise ValueError("batch_size must be 2 or more: PPO whitens advantages over a batch")
