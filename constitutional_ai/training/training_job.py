"""The description of one training, which every trainer takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from constitutional_ai.training.settings import Training

OnStep = Callable[[int, int], None]
"""Called after each optimiser step with (steps done, steps in all)."""
Settings = TypeVar("Settings", bound=Training, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob(Generic[Settings]):
    """The rows, the model to start from, the settings, and the folder for the result."""

    rows: Sequence[Any]
    """Rows in TRL's form; for a regression, ``regression.Target``."""
    base: str | Path
    """Folder or hub name of the weights to start from."""
    base_name: str
    """Name of the same model for ``Checkpoint.base_model``, such as ``hf:NAME``."""
    folder: Path
    """Receives ``metrics.jsonl`` and ``model/``; checkpoints lie there until the training ends."""
    settings: Settings
    seed: int
    on_step: OnStep
    report_to: Sequence[str] = ()
    """Trackers (``trackers.py``)."""
