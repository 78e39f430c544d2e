"""What a user may say of a training. Everything else is TRL's and accelerate's."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Training(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    """Constant, as in the paper (SL-19)."""
    epochs: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=8, ge=1)
    """Sequences (pairs, for a preference model) in one optimiser step."""
    max_length: int = Field(default=512, ge=8)
    """Tokens of prompt and answer together. What is longer is left out, and counted."""
    lora_rank: int | None = Field(default=None, ge=1)
    """None trains all weights."""
