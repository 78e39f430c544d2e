"""What a user may say of a training. Everything else is TRL's and accelerate's."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Training(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    """Constant, as in the paper (SL-19)."""
    epochs: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=8, ge=1)
    """Sequences (pairs, for a preference model) in one optimiser step."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Of those, how many go through the model at once: a matter of memory, not of the result. Null: all of them."""
    max_length: int = Field(default=512, ge=8)
    """Tokens of prompt and answer together. What is longer is left out, and counted."""
    lora_rank: int | None = Field(default=None, ge=1)
    """None trains all weights. Where sl_cai and rl_cai have the same, RL goes on with SL-CAI's own adapter, and one
    base model in memory serves its reference too, and a preference model that has a rank and the same base."""
    checkpoint_steps: int = Field(default=100, ge=1)
    """Optimiser steps between checkpoints: what a kill can cost."""

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> Training:
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of micro_batch ({self.micro_batch})"
            )
        return self
