"""Trackers by other people, through the trainer's own ``report_to``; a recipe names none unless told to.

tensorboard (``cai run … report_to=[tensorboard]``) and trackio write to this machine's disk. wandb sends what is
logged, the training's settings and what the terminal shows to its server, unless WANDB_MODE=offline. Numbers are
logged, and neither prompts nor answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from constitutional_ai.errors import InputError

Tracker = Literal["trackio", "wandb", "tensorboard"]


def check(report_to: Sequence[Tracker]) -> None:
    """Raises InputError when a tracker is not installed: now, not after an hour."""
    for name in report_to:
        if find_spec(name) is None:
            raise InputError(f"report_to names {name}, which is not installed. Type: pip install {name}")


@contextmanager
def tracking(trainer: Any, folder: Path) -> Iterator[None]:
    """For the length of one training, whose folder is ``folder``."""
    for callback in trainer.callback_handler.callbacks:
        # tensorboard's own default lies among the checkpoints, which are deleted.
        if type(callback).__name__ == "TensorBoardCallback" and callback.logging_dir is None:
            callback.logging_dir = str(folder / "tensorboard")
    try:
        yield
    finally:
        if "wandb" in trainer.args.report_to:
            import wandb

            wandb.finish()  # or the next training of this process would go on in this one's run
