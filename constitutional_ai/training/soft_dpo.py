"""Direct preference optimisation on soft labels. TRL's label smoothing is one constant for all pairs.

−p·log σ(βΔ) − (1−p)·log σ(−βΔ) = −log σ(βΔ) + (1−p)·βΔ, so the second term is added to TRL's loss. Δ is the
difference of the log-ratios of answers a and b. Columns as in ``soft_labels.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference


@dataclass
class SoftDPOCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator, which keeps the labels."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["p_chosen"] = torch.tensor([example["p_chosen"] for example in examples], dtype=torch.float)
        return batch


class SoftDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer with the loss above. Needs ``precompute_ref_log_probs`` and a SoftDPOCollator."""

    _signature_columns: list[str] | None

    def _set_signature_columns_if_needed(self) -> None:
        # TRL drops all other columns before the collator sees them.
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns or []
        self._signature_columns = [*columns, *({"p_chosen"} - set(columns))]

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
