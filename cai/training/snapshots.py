"""Snapshots of a policy while it is trained: the paper's figures are drawn over them (RL-6; figures 2, 8 and 10).

Each is whole weights, as every backend loads them, in ``snapshots/<prompts seen>/``: ``cai chat`` and every evaluation
take it as ``hf:FOLDER``.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from cai.models.hugging_face import best_dtype

FOLDER, PART = "snapshots", ".part"


class Snapshots(TrainerCallback):  # type: ignore[misc]
    """Saves the policy whenever another ``every`` prompts have been trained on."""

    def __init__(self, folder: Path, every: int, prompts_per_step: int) -> None:
        self._folder, self._every, self._per_step = folder / FOLDER, every, prompts_per_step

    def on_step_end(
        self, args: Any, state: Any, control: Any, *, model: Any, processing_class: Any, **kwargs: Any
    ) -> None:
        seen = state.global_step * self._per_step
        if seen // self._every > (seen - self._per_step) // self._every:
            save(model, processing_class, self._folder / f"{seen:08d}")


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes whole weights, from a copy: merged and unmerged in bfloat16, the policy itself would change."""
    whole = copy.deepcopy(model)
    if hasattr(whole, "merge_and_unload"):
        whole = whole.merge_and_unload()
    part = folder.with_name(folder.name + PART)
    whole.to(best_dtype()).save_pretrained(part)
    tokenizer.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)  # of a step made again after a kill
    part.rename(folder)
