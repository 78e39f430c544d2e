"""Settings of the preference model's data and training (section 4.2)."""

from __future__ import annotations

from pydantic import Field

from constitutional_ai.training.settings import LimitedFile, Training


class HelpfulnessFile(LimitedFile):
    """A file of comparisons by people."""

    stronger_than: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Use only comparisons whose ``strength``, if they state one, is above this (PM-5): 0 drops ties, and the number of
    the weakest level drops that level too."""


class Pretraining(HelpfulnessFile):
    """Preference pretraining, before the training proper (PM-3)."""

    file: str
    """Pairs of any kind, such as ranked answers of web forums; read as ``helpfulness`` is."""
    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    """Ten times that of the training proper in Bai et al. 2022a."""
    epochs: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class PreferenceModelTraining(Training):
    """The training of the preference model."""

    pretraining: Pretraining | None = None
    """Pairs that the model learns from first (PM-3). All other settings are those of the training proper."""
    helpfulness: HelpfulnessFile = HelpfulnessFile()
    """People's helpfulness comparisons to mix in (PM-1): JSONL, also .gz, in our form, that of hh-rlhf, or chosen and
    rejected with a prompt or messages. Limit 0 for none."""
    helpful_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of people's comparisons in the training pairs, reached by dropping random pairs of the other side; null
    keeps all pairs. 0.425 in the paper."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of each source's prompts whose pairs are kept out of the training, to measure the model on (PM-6)."""
    second: bool = False
    """Train two models, each on half of the prompts. RL sees the first; the second only watches: if its score falls
    behind, the reward is being hacked (Bai et al. 2022a, section 4.2)."""
