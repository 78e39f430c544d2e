"""The arithmetic of PPO, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from constitutional_ai.training.advantages import clipped_value_loss, gae, kl_shaped_rewards, whitened

MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])  # three tokens, and two


def same(found: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected))


def test_each_token_pays_for_its_divergence_and_the_last_one_is_paid_the_score() -> None:
    logps = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, 50.0]])
    reference = torch.tensor([[-1.1, -2.2, -3.3], [-1.5, -1.5, 0.0]])  # log-ratios .1 .2 .3 and .5 .5
    rewards = kl_shaped_rewards(torch.tensor([2.0, -1.0]), logps, reference, MASK, 0.1)
    same(rewards, [[-0.01, -0.02, 1.97], [-0.05, -1.05, 0.0]])
    same(rewards.sum(1, keepdim=True), [[2 - 0.1 * 0.6], [-1 - 0.1 * 1.0]])  # r = score − λ·KL


def test_an_answer_left_out_of_the_loss_is_paid_nothing() -> None:
    logps = torch.ones(1, 3)
    same(kl_shaped_rewards(torch.tensor([5.0]), logps, 0 * logps, torch.zeros(1, 3), 0.1), [[0.0, 0.0, 0.0]])


def test_advantages_are_those_worked_out_by_hand() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 2.0, 9.0]])
    values = torch.tensor([[0.5, 0.25, 0.5], [1.0, 1.0, 7.0]])
    # First answer, λ = ½, from its end. Surprises δ = r + V' − V: 1 − ½ = ½; ½ − ¼ = ¼; ¼ − ½ = −¼.
    # A = ½; ¼ + ½·½ = ½; −¼ + ½·½ = 0.
    # Second, which ends a token earlier: δ = 2 − 1 = 1; 1 − 1 = 0. A = 1; 0 + ½·1 = ½.
    same(gae(rewards, values, MASK, 0.5), [[0.0, 0.5, 0.5], [0.5, 1.0, 0.0]])


numbers = st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4)


@given(numbers, numbers, st.integers(0, 4))
def test_between_one_step_ahead_and_all_that_is_still_paid(
    paid: list[float], expected: list[float], length: int
) -> None:
    mask = torch.tensor([[1.0] * length + [0.0] * (4 - length)])
    rewards, values = torch.tensor([paid]) * mask, torch.tensor([expected])
    to_go = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(gae(rewards, values, mask, 1.0), (to_go - values) * mask, atol=1e-4, rtol=0)
    ahead = torch.cat([(values * mask)[:, 1:], torch.zeros(1, 1)], dim=1)
    torch.testing.assert_close(
        gae(rewards, values, mask, 0.0), (rewards + ahead - values) * mask, atol=1e-4, rtol=0
    )


def test_whitening_looks_at_tokens_of_answers_only() -> None:
    same(whitened(torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[1, 1, 0]])), [[-1.0, 1.0, 0.0]])
    same(whitened(torch.ones(1, 2), torch.zeros(1, 2)), [[0.0, 0.0]])
    assert whitened(torch.ones(1, 2), torch.ones(1, 2)).abs().max() == 0


@pytest.mark.parametrize(
    ("value", "old", "paid", "loss"),
    [
        (0.6, 0.5, 0.0, 0.18),  # near the old value: ½·0.6²
        (1.0, 0.5, 2.0, 0.845),  # moved by ½ towards 2: counts as 0.7, so ½·1.3²
        (1.0, 0.5, 0.0, 0.5),  # moved away from 0: its full error, ½·1²
    ],
)
def test_a_value_gains_nothing_by_moving_further_than_the_clip(
    value: float, old: float, paid: float, loss: float
) -> None:
    same(clipped_value_loss(*(torch.tensor([[x]]) for x in (value, old, paid)), clip=0.2), [[loss]])


def test_beyond_the_clip_the_value_is_no_longer_pulled() -> None:
    value = torch.tensor([[1.0]], requires_grad=True)
    clipped_value_loss(value, torch.tensor([[0.5]]), torch.tensor([[2.0]]), 0.2).sum().backward()
    assert value.grad is not None
    assert value.grad.item() == 0
