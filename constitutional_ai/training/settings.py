"""Settings of a training, the base classes of all other settings, and the training itself as every trainer takes it.

The settings of each step are next to its code (``sl_cai/settings.py``, ``rl_cai/*/settings.py``) and build on these.
All other choices are left to TRL and accelerate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from constitutional_ai.models.model import Sampling


class Section(BaseModel):
    """Immutable settings, which reject unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _names_a_path_or_model(cls, value: Any) -> Any:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds NUL (\\0), which no name has")
        return value


class Sampled(Section):
    """Settings of a step that samples text."""

    temperature: float = Field(default=1.0, ge=0, le=10)
    """Sampling temperature, 0 (greedy) to 10; 1 throughout the paper (SL-10)."""
    max_tokens: int = Field(default=128, ge=1, le=1_000_000)
    """Maximum length of each text, in tokens; 128 is the limit of Bai et al. 2022a (SL-13)."""
    thinking_tokens: int = Field(default=0, ge=0, le=1_000_000)
    """Tokens that a model may spend on a thought before each text, beside max_tokens. 0 switches thinking off, if its
    chat template or server has a switch."""

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_tokens=self.max_tokens, thinking=self.thinking_tokens)


class LimitedFile(Section):
    """A data file, and how many of its rows are used."""

    file: str = "built-in"
    """File of rows: JSON lines, CSV or Parquet, also .gz (docs/data.md); built-in: those that come with the package."""
    limit: int | None = Field(default=None, ge=0, le=1_000_000_000)
    """Number of the file's training rows to use, drawn at random; null uses all, 0 none."""


class Training(Section):
    """Settings of one training."""

    learning_rate: float = Field(default=1e-5, gt=0, le=1e6)
    """Learning rate; constant, as in the paper (SL-19)."""
    epochs: float = Field(default=1.0, gt=0, le=10_000)
    """Passes over the training rows; parts of one are possible; 1 in the paper (SL-19, PM-3)."""
    batch_size: int = Field(default=8, ge=1, le=1_000_000)
    """Sequences (pairs, for a preference model) in one optimiser step."""
    micro_batch: int | None = Field(default=None, ge=1, le=1_000_000)
    """Sequences of a batch that go through the model at once. Changes memory, not the result. Null: the whole batch."""
    max_length: int = Field(default=512, ge=8, le=10_000_000)
    """Tokens of prompt and answer together. Longer rows are left out and counted."""
    lora_rank: int | None = Field(default=None, ge=1, le=100_000)
    """Rank of LoRA; null trains all weights. If sl_cai and rl_cai have the same rank, RL continues with SL-CAI's
    adapter, and the base in memory is also the KL reference, and the preference model's base if it uses LoRA on it."""
    checkpoint_steps: int = Field(default=100, ge=1, le=1_000_000_000)
    """Optimiser steps between checkpoints: the most that are lost when the process is killed."""

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> Training:
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of micro_batch ({self.micro_batch})"
            )
        return self


OnStep = Callable[[int, int], None]
"""Called after each optimiser step with (steps done, steps in all)."""
Settings = TypeVar("Settings", bound=Training, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob(Generic[Settings]):
    """The rows, base model, settings and result folder of one training."""

    rows: Sequence[Any]
    """Rows in TRL's form; for a regression, ``regression.Target``."""
    base: str | Path
    """Folder or hub name of the weights to start from."""
    base_name: str
    """Name of the same model for ``Checkpoint.base_model``, such as ``hf:NAME``."""
    folder: Path
    """Folder for ``metrics.jsonl`` and ``model/``, and for checkpoints until the training ends."""
    settings: Settings
    seed: int
    on_step: OnStep
    report_to: Sequence[str] = ()
    """Trackers (``trackers.py``)."""
