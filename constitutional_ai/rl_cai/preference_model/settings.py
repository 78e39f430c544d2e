"""Settings of the preference model's data and training (section 4.2)."""

from __future__ import annotations

from pydantic import Field

from constitutional_ai.training.settings import LimitedFile, Training


class HelpfulnessFile(LimitedFile):
    """Settings of a file of comparisons by people."""

    stronger_than: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Drop comparisons with a ``strength`` that is not above this (PM-5): 0 drops ties, and the number of the weakest
    level drops that level too."""


class Pretraining(HelpfulnessFile):
    """Settings of preference pretraining, which precedes the main training (PM-3)."""

    file: str
    """File of pairs of any kind, such as ranked answers of web forums, in the formats of ``helpfulness``."""
    learning_rate: float = Field(default=1e-5, gt=0, le=1e6)
    """Learning rate; ten times that of the main training in Bai et al. 2022a (PM-3)."""
    epochs: float = Field(default=1.0, gt=0, le=10_000)
    """Passes over the pairs; parts of one are possible."""


class PreferenceModelTraining(Training):
    """Settings of the training of the preference model."""

    pretraining: Pretraining | None = None
    """Pairs that the model learns from first (PM-3). All other settings are those of the main training."""
    helpfulness: HelpfulnessFile = HelpfulnessFile()
    """People's helpfulness comparisons to mix in (PM-1): JSONL, also .gz, in our format or hh-rlhf's, or with chosen,
    rejected, and prompt or messages. Limit 0 uses none."""
    helpful_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of people's comparisons in the training pairs, reached by dropping random pairs of the side with too many;
    null keeps all pairs. 0.425 in the paper (PM-1)."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of each source's prompts whose pairs are not trained on, but measure the model (PM-6)."""
    second: bool = False
    """Whether to train two models, each on half of the prompts. RL uses the first. If the score of the second falls
    behind, the reward is being hacked (Bai et al. 2022a, section 4.2)."""
