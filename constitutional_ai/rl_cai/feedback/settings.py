"""Settings of the comparisons and of the feedback model (sections ``comparisons`` and ``feedback`` of a recipe)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from constitutional_ai.models.model import Format, Model, Sampling
from constitutional_ai.training.settings import Sampled, Section

MethodName = Literal["multiple_choice", "chain_of_thought", "votes", "likelihood", "decision"]
ContrastName = Literal["personas", "prompt"]


class Comparisons(Sampled):
    """Settings of the pairs of answers that the feedback model compares."""

    per_prompt: int = Field(default=1, ge=0, le=1000)
    """Pairs of answers to each red-team prompt; 1 in the paper (FB-2). 0: no pairs and no AI feedback, so that the
    preference model learns from people's comparisons only, as for the paper's RLHF (OV-4)."""
    contrast: ContrastName | None = None
    """Null: two draws of SL-CAI, which the feedback model compares. Or pairs whose better answer is known, and no judge
    is asked: personas (RLCD: one answer by the assistant that upholds a principle, one by the one that breaks it) or
    prompt (one with the constitution in the context, one without). Baselines; not the paper's."""
    revised: bool = False
    """Whether the feedback model also compares the response to each red-team prompt with its last revision. Ours: where
    most draws of a small model agree on refusing or on complying, few pairs tell the two apart."""


class Feedback(Section):
    """Settings of the feedback model."""

    method: MethodName = "multiple_choice"
    """multiple_choice or chain_of_thought, which are the paper's; votes (for models without log-probabilities),
    likelihood (for small models) or decision (for servers with a decision endpoint), which are ours."""
    votes: int = Field(default=8, ge=1, le=1000)
    """Number of votes sampled for each question by method votes."""
    format: Literal["auto", "chat", "plain"] = "auto"
    """Form of the question: the model's chat template, or the paper's plain text. auto: the model's own format."""
    both_orders: bool = True
    """Whether to ask in both orders of the answers and average; the paper is silent (FB-8)."""
    principles: Annotated[int, Field(ge=1, le=100_000)] | Literal["all"] = 1
    """Number of principles drawn for each comparison, from each rank, or all; their probabilities are averaged
    (FB-6)."""
    chains: int = Field(default=1, ge=1, le=1000)
    """Number of chains of thought averaged for each question; the paper averages 5 in evaluation (FB-15)."""
    clamp: tuple[float, float] = (0.4, 0.6)
    """Interval to which labels of chain_of_thought are clamped (FB-13); [0, 1] does not change them."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """Sampling temperature of chains of thought and votes, 0 (greedy) to 10."""
    max_tokens: int = Field(default=256, ge=1, le=1_000_000)
    """Maximum length of a chain of thought or a vote, in tokens."""
    thinking_tokens: int = Field(default=0, ge=0, le=1_000_000)
    """Tokens that the model may spend on a thought before each of them; 0 switches thinking off where it can be."""
    predicates: bool = False
    """Whether ``cai evaluate`` also asks the judge of each answer whether it refuses, and is harmful; and ``cai judge``
    which answer of a pair is more harmful. Ours; needs a model that answers decision questions, by whatever method it
    labels. The embedded one is no better than a coin."""
    gate: Literal["warn", "stop"] = "warn"
    """What happens if the feedback model is no better than chance on questions with known answers: warn, or stop."""

    @model_validator(mode="after")
    def _clamp_is_an_interval(self) -> Feedback:
        if not 0 <= self.clamp[0] <= self.clamp[1] <= 1:
            raise ValueError(
                f"clamp {list(self.clamp)} is not an interval inside [0, 1]: set clamp to [0.4, 0.6]"
            )
        return self

    @model_validator(mode="after")
    def _decisions_are_no_plain_text(self) -> Feedback:
        if self.method == "decision" and self.format == "plain":
            raise ValueError("method decision asks in the model's own chat template: set format to auto")
        return self

    def format_for(self, model: Model) -> Format:
        """Return the format in which questions are put to ``model``."""
        return model.format if self.format == "auto" else self.format

    def sampling(self, seed: int) -> Sampling:
        """Return the sampling of a chain of thought or a vote."""
        return Sampling(
            temperature=self.temperature, max_tokens=self.max_tokens, seed=seed, thinking=self.thinking_tokens
        )
