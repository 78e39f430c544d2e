"""The callbacks of reinforcement learning: snapshots of the policy (RL-6), and the order of the prompts."""

from __future__ import annotations

import copy
from bisect import bisect_left
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from constitutional_ai.models.model import STOP_STRINGS, cut_at_stop
from constitutional_ai.runs import layout
from constitutional_ai.runs.durable import PART, discard
from constitutional_ai.training import processes, rounding


class OrderByEpoch(TrainerCallback):  # type: ignore[misc]
    """A callback that seeds each epoch's order with the epoch's number.

    TRL's sampler draws every order from one generator. A training that is resumed in a later epoch would restart that
    generator and see the first epoch's order again.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any, **kwargs: Any) -> None:
        batches = train_dataloader.batch_sampler
        batches = getattr(batches, "batch_sampler", batches)  # of all processes, where there are several
        batches.sampler.generator.manual_seed((args.seed + int(state.epoch)) % 2**63)


class Snapshots(TrainerCallback):  # type: ignore[misc]
    """A callback that saves the policy every ``every`` prompts, for the paper's figures 2, 8 and 10.

    Each is a whole model in ``snapshots/<prompts seen>/``, which every backend can load as ``hf:FOLDER``. Each batch of
    prompts is used for ``passes`` steps.
    """

    def __init__(self, folder: Path, every: int, *, prompts_per_batch: int, passes: int) -> None:
        self._folder, self._every = folder / layout.SNAPSHOTS, every
        self._per_batch, self._passes = prompts_per_batch, passes

    def on_step_end(
        self, args: Any, state: Any, control: Any, *, model: Any, processing_class: Any, **kwargs: Any
    ) -> None:
        batches, unfinished = divmod(state.global_step, self._passes)
        seen = batches * self._per_batch
        due = seen // self._every > (seen - self._per_batch) // self._every
        if processes.is_first() and due and not unfinished:
            save(model, processing_class, self._folder / f"{seen:08d}")


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write whole weights from a copy, because merging and unmerging in bfloat16 would change the policy."""
    part = folder.with_name(folder.name + PART)
    discard(folder)  # left by a step that is repeated after a kill
    rounding.save(copy.deepcopy(model), tokenizer, part)
    part.rename(folder)


def ended(tokens: list[int], tokenizer: Any) -> list[int]:
    """Return the tokens up to the one that completes the first stop string; all tokens if there is none."""

    def stops(length: int) -> bool:
        return cut_at_stop(tokenizer.decode(tokens[:length], skip_special_tokens=True), STOP_STRINGS)[1]

    return tokens[: bisect_left(range(len(tokens)), True, key=stops)]
