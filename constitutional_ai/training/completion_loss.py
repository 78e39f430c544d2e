"""Finetune with SFTTrainer and a loss that is fast on a CPU.

TRL's fused loss saves memory on a GPU; on a CPU it multiplies by the vocabulary in float32 and collects unneeded
statistics. This loss projects only the answers' tokens, in the autocast type, and takes packed batches
(``packing.py``). It has the same value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trl import SFTTrainer

from constitutional_ai.training.packing import causal_mask, hidden_states
from constitutional_ai.training.processes import through
from constitutional_ai.training.shares import SharedBatches

RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Configuration keys of models that also rescale their logits; TRL's loss is used for these."""


class CompletionLossTrainer(SharedBatches, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with ``answer_loss`` on a CPU, and TRL's own loss otherwise."""

    def weightless(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row of which no token is trained."""
        return row | {"labels": [-100] * len(row["labels"])}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        plain = self.accelerator.unwrap_model(model)
        causal = plain.get_base_model() if hasattr(plain, "get_base_model") else plain
        rescaled = any(getattr(causal.config, name, None) not in (None, 1, 1.0) for name in RESCALED)
        if return_outputs or rescaled or self.accelerator.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with self.accelerator.autocast():  # the trainer's own autocast is around the wrapper
            mean = through(model, plain, lambda: answer_loss(causal, inputs))
        trained = (inputs["labels"][:, 1:] != -100).sum()
        tokens = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).sum() * (trained > 0)
        self._total_train_tokens += int(self.accelerator.gather(tokens).sum())
        self._metrics["train"]["num_tokens"] = [float(self._total_train_tokens)]
        if num_items_in_batch is None:
            return mean
        # Every token counts alike, however the tokens are split into micro-batches and processes, whose mean is taken.
        return mean * trained / num_items_in_batch * self.accelerator.num_processes


def answer_loss(causal: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the mean cross-entropy of the tokens whose label is not −100; 0 if there is none.

    The batch is padded, or in TRL's ``padding_free`` form.
    """
    if "attention_mask" in batch:
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
        hidden_BTD = causal.base_model(**inputs, use_cache=False).last_hidden_state
    else:
        masks = [causal_mask(length) for length in batch["cu_seq_lens_q"].diff().tolist()]
        inputs = {key: batch[key] for key in ("input_ids", "position_ids")}
        hidden_BTD = hidden_states(causal, masks, **inputs)[None]
    targets = batch["labels"][:, 1:]
    trained = targets != -100
    logits = causal.get_output_embeddings()(hidden_BTD[:, :-1][trained])
    return cross_entropy(logits.float(), targets[trained]) if len(logits) else logits.float().sum()
