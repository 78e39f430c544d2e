"""PPO, the paper's algorithm (RL-1, RL-2), on TRL's GRPO trainer, because TRL no longer has a PPO trainer.

TRL samples, scores, keeps log-probabilities, clips the ratio of each token, and accepts an advantage for each token.
This file adds the reward of each token, the value head and the advantages (``advantages.py``).

- The KL divergence is in the rewards, as in the paper, not in the loss as in GRPO.
- Advantages are whitened over each sampled batch (the paper does not say), but rewards are not.
- The value head reads the policy's hidden states and does not train them: one copy of the weights serves both, and no
  error of the values reaches the policy.
- Several processes exchange the gradients of the value head, which the policy's wrapper does not know, themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import layer_norm
from trl import GRPOConfig

from constitutional_ai.training.advantages import clipped_value_loss, gae, kl_shaped_rewards, whitened
from constitutional_ai.training.on_engine import GRPOTrainer

VALUE_HEAD = "value_head.safetensors"


@dataclass
class PPOConfig(GRPOConfig):  # type: ignore[misc]
    """GRPO's configuration, with settings of the advantages and the value head."""

    gae_lambda: float = 0.95
    """1 trusts the rewards, 0 the value head. The paper does not say; γ is 1 (RL-2)."""
    value_learning_rate: float = 1e-3
    """Learning rate of the value head; higher than the policy's, because the head is trained from scratch."""

    def __post_init__(self) -> None:
        # The paper samples one answer to a prompt (RL-1). TRL requires groups of two or more, which PPO does not use,
        # so its check sees the whole batch as one group.
        answers: int = self.num_generations  # type: ignore[has-type]
        self.num_generations = self.per_device_train_batch_size * self.gradient_accumulation_steps
        super().__post_init__()
        self.num_generations = answers


class ValueHead(torch.nn.Module):
    """A linear head that predicts the sum of later rewards before each token: (B, T, width) → (B, T).

    Its predictions start at 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            # The scale of hidden states differs between models by orders of magnitude; one learning rate must suit all.
            even_BTD = layer_norm(hidden_BTD.detach().float(), hidden_BTD.shape[-1:])
            values_BT: torch.Tensor = self.linear(even_BTD).squeeze(-1)
            return values_BT


class PPOTrainer(GRPOTrainer):
    """GRPOTrainer with PPO's advantages, for one reward function. ``args.beta`` is λ, the KL weight in the rewards."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        self._backbone = causal.base_model
        width = causal.config.get_text_config().hidden_size
        self.value_head = ValueHead(width).to(self.accelerator.device)

    @contextmanager
    def _values(self, tokens: int) -> Iterator[list[torch.Tensor]]:
        """Collect the values of the last ``tokens`` tokens from every forward pass of the policy in the block."""
        collected: list[torch.Tensor] = []

        def collect(_module: Any, _args: Any, output: Any) -> None:
            hidden_BND = output.last_hidden_state  # at a position it predicts the token after it
            if self._rows is None:
                collected.append(self.value_head(hidden_BND[:, -tokens - 1 : -1]))
            else:
                before_MD = hidden_BND[0][self._rows.before]
                collected.append(self._rows.padded(self.value_head(before_MD)))

        hook = self._backbone.register_forward_hook(collect)
        try:
            yield collected
        finally:
            hook.remove()

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        rewards_BF: torch.Tensor = super()._calculate_rewards(*args, **kwargs)
        answers = len(rewards_BF) // self.accelerator.num_processes  # the rewards are those of all processes
        self._scores_B = rewards_BF[self.accelerator.process_index * answers :][:answers, 0]
        return rewards_BF

    def _total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        summed: torch.Tensor = self.accelerator.reduce(values.sum(), reduction="sum")
        return summed

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        scored_B, tokens = ~self._scores_B.isnan(), batch["completion_ids"].shape[1]
        mask_BT = batch["completion_mask"] * scored_B.unsqueeze(1)  # an unscored answer is not trained on
        with torch.no_grad(), self._values(tokens) as values:
            logps_BT, _, _ = self._logps_by_forward(
                self.model,
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                torch.cat([batch["prompt_mask"], mask_BT], dim=1),
                tokens,
                batch_size=self.args.per_device_train_batch_size,
            )
        values_BT = torch.cat(values)
        has_reference = "ref_per_token_logps" in batch  # TRL computes none if λ is 0
        reference_BT = batch.pop("ref_per_token_logps", logps_BT)
        rewards_BT = kl_shaped_rewards(self._scores_B.nan_to_num(), logps_BT, reference_BT, mask_BT, self.beta)
        advantages_BT = gae(rewards_BT, values_BT, mask_BT, self.args.gae_lambda)
        log, tokens_of_all = self._metrics["train"], self._total(mask_BT)
        del log["frac_reward_zero_std"]  # it is about groups, which PPO does not have
        if has_reference:
            log["kl"].append(
                self._total((logps_BT - reference_BT) * mask_BT).item() / tokens_of_all.clamp(min=1).item()
            )
        # TRL shuffles all of these together. It leaves out "old_per_token_logps" if a batch is used once: then the
        # ratio is exactly 1.
        return batch | {
            "completion_mask": mask_BT,
            "num_items_in_batch": tokens_of_all,
            "advantages": whitened(advantages_BT, mask_BT, self._total),
            "values": values_BT,
            "returns": advantages_BT + values_BT,
        }

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        kl_weight: float = self.beta  # type: ignore[has-type]
        self.beta = 0.0  # the KL divergence is in the rewards already
        try:
            with self._values(inputs["completion_ids"].shape[1]) as values:
                policy_loss: torch.Tensor = super()._compute_loss(model, inputs)
        finally:
            self.beta = kl_weight
        errors_BT = clipped_value_loss(values[0], inputs["values"], inputs["returns"], self.args.epsilon)
        # As in TRL's policy loss, every token counts alike, however they are split into micro-batches and processes.
        tokens_each = inputs["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
        value_loss = (errors_BT * inputs["completion_mask"]).sum() / tokens_each
        self._metrics["train"]["value_loss"].append(
            self._total(value_loss.detach()).item()
            / self.accelerator.num_processes
            * self.current_gradient_accumulation_steps
        )
        loss: torch.Tensor = policy_loss + value_loss
        return loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        optimizer.add_param_group(
            {
                "params": list(self.value_head.parameters()),
                "lr": self.args.value_learning_rate,
                "weight_decay": 0.0,
            }
        )
        optimizer.register_step_pre_hook(lambda *_: self._exchange_gradients())
        # The trainer resets the gradients of its model only.
        optimizer.register_step_post_hook(lambda *_: self.value_head.zero_grad())
        return optimizer

    def _exchange_gradients(self) -> None:
        """Average the value head's gradients over all processes, as is done with those of the policy."""
        for weight in self.value_head.parameters():
            if weight.grad is not None:
                weight.grad = self.accelerator.reduce(weight.grad, reduction="mean")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:  # every process calls this, and one writes
            save_file(self.value_head.state_dict(), Path(output_dir or self.args.output_dir) / VALUE_HEAD)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.value_head.load_state_dict(load_file(Path(resume_from_checkpoint) / VALUE_HEAD))
