"""The arithmetic of PPO: the reward, the advantage and the value loss of each token of an answer.

Shapes: B answers of T tokens each, right-padded. ``mask_BT`` is 1 on the tokens of an answer and 0 after its end; an
answer that is left out of the loss has 0 everywhere. There is no discount: γ = 1 (RL-2).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, stack, zeros_like
from torch import sum as torch_sum


def kl_shaped_rewards(
    scores_B: Tensor, logps_BT: Tensor, reference_logps_BT: Tensor, mask_BT: Tensor, kl_weight: float
) -> Tensor:
    """Return −λ·(log π − log π₀) at each token, plus the preference model's score at the last one (RL-1).

    Summed over an answer this is its score − λ·KL, where KL is the one-sample estimate that RLOO uses too.
    """
    last_BT = mask_BT * (mask_BT.cumsum(1) == mask_BT.sum(1, keepdim=True))
    return scores_B.unsqueeze(1) * last_BT - kl_weight * (logps_BT - reference_logps_BT) * mask_BT


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gae_lambda: float) -> Tensor:
    """Return generalised advantage estimates (Schulman et al. 2016, equation 16), 0 after an answer's end.

    ``values_BT`` is the reward expected before each token. With ``gae_lambda`` 1 an advantage is the sum of all later
    rewards minus the value; with 0 it looks one token ahead. The value after an answer's last token is 0.
    """
    values_BT = values_BT * mask_BT
    advantage_B = expected_B = zeros_like(values_BT[:, 0])
    backwards = []
    for t in reversed(range(values_BT.shape[1])):
        surprise_B = rewards_BT[:, t] + expected_B - values_BT[:, t]
        advantage_B = (surprise_B + gae_lambda * advantage_B) * mask_BT[:, t]
        expected_B = values_BT[:, t]
        backwards.append(advantage_B)
    return stack(backwards[::-1], dim=1)


def whitened(advantages_BT: Tensor, mask_BT: Tensor, total: Callable[[Tensor], Tensor] = torch_sum) -> Tensor:
    """Scale to mean 0 and variance 1 over the tokens of all answers; 0 after an answer's end.

    ``total`` sums a tensor; with several processes, over the answers of all.
    """
    tokens = total(mask_BT).clamp(min=1)
    centred_BT = (advantages_BT - total(advantages_BT * mask_BT) / tokens) * mask_BT
    return centred_BT / (total(centred_BT**2) / tokens + 1e-8).sqrt()


def clipped_value_loss(values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, clip: float) -> Tensor:
    """Return half the squared error of each token, of shape (B, T).

    A value that has moved further than ``clip`` from the one at sampling counts as if it had stopped there, if that
    error is larger; so moving further gains nothing.
    """
    near_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
    return 0.5 * (values_BT - returns_BT).square().maximum((near_BT - returns_BT).square())
