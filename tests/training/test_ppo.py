"""What PPO adds to TRL's trainer and can be tested without a training. The rest: tests/rl_cai/reinforcement/."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from constitutional_ai.training.launch import arguments
from constitutional_ai.training.ppo import PPOConfig, ValueHead
from constitutional_ai.training.settings import Training
from tests.training.jobs import training_job


def test_values_start_at_zero_and_never_pull_on_the_policy() -> None:
    head = ValueHead(8)
    hidden = torch.randn(2, 3, 8, requires_grad=True)
    assert torch.equal(head(hidden), torch.zeros(2, 3))
    with torch.no_grad():
        head.linear.weight.fill_(0.5)
    head(hidden).square().sum().backward()
    assert hidden.grad is None
    assert head.linear.weight.grad is not None


def test_values_are_float32_under_autocast_and_do_not_depend_on_the_size_of_hidden_states() -> None:
    head = ValueHead(8)
    torch.nn.init.normal_(head.linear.weight)
    hidden = torch.randn(1, 3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = head(hidden)
        assert values.dtype == torch.float32
        torch.testing.assert_close(head(1000 * hidden), values, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("answers", [1, 3])
@pytest.mark.parametrize("micro", [1, 3])
def test_one_answer_to_a_prompt_is_enough(tmp_path: Path, answers: int, micro: int) -> None:
    """Also in batches of odd size, which hold no groups of two."""
    given = arguments(training_job(folder=tmp_path, settings=Training(batch_size=9, micro_batch=micro)))
    config = PPOConfig(**given, num_generations=answers)
    assert config.num_generations == answers
    assert config.generation_batch_size == 9
