"""Trainings for tests: everything that a test does not care about has a default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.training.settings import Training, TrainingJob


def training_job(
    rows: Sequence[Any] = (),
    base: Path = Path("base"),
    folder: Path = Path("unused"),
    settings: Training | None = None,
    **changes: Any,
) -> TrainingJob[Any]:
    """A job with seed 0 that reports no step."""
    defaults = {"base_name": "hf:tiny", "seed": 0, "on_step": lambda done, total: None}
    return TrainingJob(
        rows=rows, base=base, folder=folder, settings=settings or Training(), **{**defaults, **changes}
    )
