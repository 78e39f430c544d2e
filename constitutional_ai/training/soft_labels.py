"""Train a preference model (PM-4), or a policy by DPO, on soft labels. TRL supports only hard ones.

Columns: ``prompt``, ``chosen`` (answer a), ``rejected`` (answer b), ``p_chosen`` = P(a is better). Our rows have a
``p_chosen`` of at least 0.5, which TRL's own accuracy and margins assume. That accuracy also counts ties;
``agreement``, which is logged beside it, does not. The losses take any ``p_chosen``.

DPO: −p·log σ(βΔ) − (1−p)·log σ(−βΔ) = −log σ(βΔ) + (1−p)·βΔ, so the second term is added to TRL's loss. Δ is the
difference of the log-ratios of answers a and b.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from trl import DPOConfig, DPOTrainer, RewardTrainer
from trl.trainer import dpo_trainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from constitutional_ai.training.packing import in_one_row, scores
from constitutional_ai.training.processes import through
from constitutional_ai.training.shares import SharedBatches


def soft_label_loss(score_a: torch.Tensor, score_b: torch.Tensor, p_a: torch.Tensor) -> torch.Tensor:
    """Return the mean of −p·log σ(a−b) − (1−p)·log σ(b−a), from three tensors of shape (pairs,).

    With p = 1 it equals TRL's own loss.
    """
    return binary_cross_entropy_with_logits(score_a - score_b, p_a.to(score_a))


@dataclass
class SoftLabelCollator(DataCollatorForPreference):  # type: ignore[misc]
    """A collator that pads texts, or, if ``packed``, puts all pairs in one row, each with its prompt once."""

    packed: bool = False

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        if self.packed:
            batch: dict[str, Any] = in_one_row([(x["chosen_ids"], x["rejected_ids"]) for x in examples])
        else:
            batch = super().torch_call(examples)
        batch["p_chosen"] = torch.tensor([example["p_chosen"] for example in examples], dtype=torch.float)
        batch["counts"] = torch.tensor([example.get("counts", True) for example in examples])
        # The head reads the last token that is not padding. If padding and end of text are the same token, the score of
        # a text that ends in it would silently be read one token too early (stack trap: pad == eos).
        for example in examples:
            for side in ("chosen_ids", "rejected_ids"):
                if example[side][-1] == self.pad_token_id:
                    raise ValueError("a preference text ends in the padding token: its score would be misread")
        return batch


class SoftLabelTrainer(SharedBatches, RewardTrainer):  # type: ignore[misc]
    """RewardTrainer with ``soft_label_loss``. Its collator must be a SoftLabelCollator.

    Every pair of an optimiser step counts alike, however they are split into micro-batches and processes.
    """

    _pairs_in_step: int | None = None

    def weightless(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a pair that counts for nothing."""
        return row | {"counts": False}

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """See the trainer. Counts the pairs of the optimiser step, too."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        pairs = torch.cat([batch["counts"] for batch in batches]).sum().to(self.accelerator.device)
        self._pairs_in_step = int(self.accelerator.reduce(pairs, reduction="sum"))
        return batches, items

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        p_P, counts_P = inputs.pop("p_chosen"), inputs.pop("counts")
        if "parts" in inputs:
            wrapper, plain = model, self.accelerator.unwrap_model(model)
            inner = plain.get_base_model() if hasattr(plain, "get_base_model") else plain

            def model(**batch: Any) -> Any:
                return through(wrapper, plain, partial(scores, inner, **batch))

        with self.accelerator.autocast():  # the trainer's own autocast is around the wrapper
            _, outputs = super().compute_loss(model, inputs, return_outputs=True)  # logs TRL's metrics too
        a_P, b_P = outputs.logits.squeeze(-1).float().chunk(2)
        own = (a_P[counts_P], b_P[counts_P], p_P[counts_P])
        loss = soft_label_loss(*own) if counts_P.any() else (a_P - b_P).sum() * 0
        if self._pairs_in_step:
            # The trainer takes the mean over the micro-batches of a step, and over processes.
            parts = self.current_gradient_accumulation_steps * self.accelerator.num_processes
            loss = loss * (int(counts_P.sum()) * parts / self._pairs_in_step)
        decided_P = (p_P.to(a_P) != 0.5) & (a_P != b_P) & counts_P
        self._log_agreement((a_P > b_P) == (p_P.to(a_P) > 0.5), decided_P)
        return (loss, outputs) if return_outputs else loss

    def _log_agreement(self, agree_P: torch.Tensor, decided_P: torch.Tensor) -> None:
        """Log the share of decided pairs that agree. A label of one half and two equal scores prefer neither."""
        counts = torch.stack([(agree_P & decided_P).sum(), decided_P.sum()])
        agree, decided = self.accelerator.reduce(counts, reduction="sum").tolist()
        if decided:
            self._metrics["train" if self.model.training else "eval"]["agreement"].append(agree / decided)


@dataclass
class SoftDPOCollator(dpo_trainer.DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator, which keeps the labels."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["p_chosen"] = torch.tensor([example["p_chosen"] for example in examples], dtype=torch.float)
        return batch


SoftDPOConfig = DPOConfig


class SoftDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer with the loss above. Needs ``precompute_ref_log_probs`` and a SoftDPOCollator."""

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        return super().compute_ref_log_probs(model, {k: v for k, v in inputs.items() if k != "p_chosen"})

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        p_P = inputs.pop("p_chosen")
        logps: list[torch.Tensor] = []
        hook = model.register_forward_hook(lambda module, inputs, outputs: logps.append(outputs.log_probs))
        try:
            loss = super().compute_loss(model, inputs)
        finally:
            hook.remove()
        a_P, b_P = logps[0].sum(1).chunk(2)
        delta_P = (a_P - inputs["ref_chosen_logps"]) - (b_P - inputs["ref_rejected_logps"])
        return loss + ((1 - p_P.to(delta_P)) * self.beta * delta_P).mean()
