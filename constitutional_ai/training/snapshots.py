"""Save snapshots of a policy during its training; the paper's figures use them (RL-6; figures 2, 8 and 10).

Each is a whole model in ``snapshots/<prompts seen>/``, which every backend can load by the name ``hf:FOLDER``.
``evaluation.snapshots`` measures them with the other models.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from constitutional_ai import machine
from constitutional_ai.runs import layout
from constitutional_ai.training import rounding

PART = ".part"


class Snapshots(TrainerCallback):  # type: ignore[misc]
    """Saves the policy after every ``every`` prompts. A batch of prompts takes ``passes`` steps."""

    def __init__(self, folder: Path, every: int, *, prompts_per_batch: int, passes: int) -> None:
        self._folder, self._every, self._per_batch, self._passes = (
            folder / layout.SNAPSHOTS,
            every,
            prompts_per_batch,
            passes,
        )

    def on_step_end(
        self, args: Any, state: Any, control: Any, *, model: Any, processing_class: Any, **kwargs: Any
    ) -> None:
        batches, unfinished = divmod(state.global_step, self._passes)
        seen = batches * self._per_batch
        if not unfinished and seen // self._every > (seen - self._per_batch) // self._every:
            save(model, processing_class, self._folder / f"{seen:08d}")


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write whole weights from a copy, because merging and unmerging in bfloat16 would change the policy."""
    whole = copy.deepcopy(model)
    if hasattr(whole, "merge_and_unload"):
        whole = rounding.merged(whole)
    part = folder.with_name(folder.name + PART)
    rounding.cast(whole, machine.best_dtype()).save_pretrained(part)
    tokenizer.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)  # left by a step that is repeated after a kill
    part.rename(folder)
