"""Report trainings to experiment trackers, through the trainer's ``report_to``; none by default.

tensorboard (``cai run … report_to=[tensorboard]``) and trackio write to this machine's disk. wandb sends the logged
numbers, the training's settings and the terminal's output to its server, unless WANDB_MODE=offline. Only numbers are
logged, neither prompts nor answers.
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
    """Raise InputError, before the run, if a tracker is not installed."""
    for name in report_to:
        if find_spec(name) is None:
            raise InputError(f"report_to names {name}, which is not installed. Type: pip install {name}")


@contextmanager
def tracking(trainer: Any, folder: Path) -> Iterator[None]:
    """Set the trackers up for one training in ``folder``, and close them after it."""
    for callback in trainer.callback_handler.callbacks:
        # tensorboard's default folder is among the checkpoints, which are deleted.
        if type(callback).__name__ == "TensorBoardCallback" and callback.logging_dir is None:
            callback.logging_dir = str(folder / "tensorboard")
    try:
        yield
    finally:
        if "wandb" in trainer.args.report_to:
            import wandb

            wandb.finish()  # otherwise the process's next training would continue this wandb run
