"""Define the RL algorithms. To add one, add its name and an entry to ``ALGORITHMS``.

The objective is r = PM score − λ·KL(policy ‖ SL-CAI). The algorithms differ in where the KL divergence enters, and in
the baseline of an answer's score:

- rloo: each answer's baseline is the mean of the other answers to the same prompt. The KL divergence is in the reward,
  summed over the answer, and raw scores are used. There is no value head.
- grpo: the same groups, but scores are centred and divided by the standard deviation of their group, and the loss is
  averaged over the tokens of a batch. The KL divergence is in the loss, token by token, by an estimate that is never
  negative; so λ counts in standard deviations of a group's scores, not in scores.
- ppo: the paper's (RL-1). One answer to a prompt is enough. The KL divergence is in the reward of each token, the score
  in that of the last one, and a value head is the baseline (``training/ppo.py``).
- dpo: not in the paper, but users expect it. It samples nothing and learns from the preference labels, so it needs no
  preference model; λ is its β (``training/soft_labels.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

AlgorithmName = Literal["rloo", "grpo", "ppo", "dpo"]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An algorithm, as stages and settings need it."""

    module: str
    """Holds the trainer class, ``<prefix>Trainer``, and its config class, ``<prefix>Config``."""
    prefix: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the config class, besides those of all trainings. TRL defaults that matter are written out."""
    samples: bool = True
    """Whether it samples answers and learns from their rewards; otherwise it learns from labelled pairs of answers."""
    needs_group: bool = False
    """Whether an answer's advantage is computed from other answers to the same prompt."""

    def trainer(self) -> tuple[Any, Any]:
        """Return the trainer class and its config class. TRL is imported only now."""
        module = import_module(self.module)
        return getattr(module, f"{self.prefix}Trainer"), getattr(module, f"{self.prefix}Config")


TRAINING = "constitutional_ai.training"
TOKEN_MEAN = {"loss_type": "dapo", "entropy_coef": 0.0}
"""The loss is the mean over all tokens of a batch, without an entropy bonus (RL-2)."""

ALGORITHMS: dict[AlgorithmName, Algorithm] = {
    "rloo": Algorithm(f"{TRAINING}.on_engine", "RLOO", {"normalize_advantages": False}, needs_group=True),
    "grpo": Algorithm(
        f"{TRAINING}.on_engine", "GRPO", {**TOKEN_MEAN, "scale_rewards": "group"}, needs_group=True
    ),
    "ppo": Algorithm(f"{TRAINING}.ppo", "PPO", TOKEN_MEAN),
    # Log-probabilities of the reference are computed first, so that only one model is in memory.
    "dpo": Algorithm(f"{TRAINING}.soft_labels", "SoftDPO", {"precompute_ref_log_probs": True}, samples=False),
}
