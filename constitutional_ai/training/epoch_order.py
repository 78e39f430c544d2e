"""The order of the prompts in reinforcement, epoch by epoch."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class OrderByEpoch(TrainerCallback):  # type: ignore[misc]
    """Seed each epoch's order with the epoch's number.

    TRL's sampler draws every order from one generator. A training that is resumed in a later epoch would restart that
    generator and see the first epoch's order again.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any, **kwargs: Any) -> None:
        train_dataloader.batch_sampler.sampler.generator.manual_seed((args.seed + int(state.epoch)) % 2**63)
