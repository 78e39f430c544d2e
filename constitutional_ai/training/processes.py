"""Trainings on several processes, which torchrun or accelerate launch starts: who they are, and what rank zero says.

Rank zero owns the run; the others wait for its calls, and join its trainings (``stages/follow.py``). What it says goes
through the store by which torchrun's processes find each other, as text, so that nothing is unpickled, and a process
may wait for days; a collective operation would give up after half an hour. Gradients go another way, which is torch's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count as numbers
from typing import Any, TypeVar

from constitutional_ai.errors import InputError
from constitutional_ai.training.settings import Training

FOREVER = timedelta(days=365)
NO_CALL = ""
"""What rank zero says instead of a call, when no training is left."""
AGENT_STORE, RESTARTS = "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"
SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""Variables that accelerate launch sets to true."""
Result = TypeVar("Result")
_numbers = numbers()


def count() -> int:
    """Return the number of processes: 1 unless torchrun or accelerate launch started several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process: 0 for the one that owns the run."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_first() -> bool:
    """Return whether this process writes files and talks to the user."""
    return rank() == 0


def shard_weights() -> bool:
    """Return whether each process holds only a part of the weights (FSDP, DeepSpeed)."""
    return count() > 1 and any(os.environ.get(name, "").lower() == "true" for name in SHARDING)


def use_own_device() -> None:
    """Make each process of a machine use a GPU of its own. Raises InputError if nothing connects the processes."""
    if count() == 1:
        return
    if os.environ.get(AGENT_STORE) != "True":
        raise InputError(
            f"WORLD_SIZE is {count()}, and nothing connects the processes. Start them by: torchrun --nproc_per_node N "
            "-m constitutional_ai run RECIPE"
        )
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


@cache
def _store() -> Any:
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"cai/{os.environ.get(RESTARTS, '0')}", store)


def agreed(text: str = "") -> str:
    """Return the ``text`` of rank zero, in every process; the others wait for it.

    All processes call this equally often.
    """
    if count() == 1:
        return text
    key = str(next(_numbers))
    if is_first():
        _store().set(key, text)
        return text
    _store().wait([key], FOREVER)
    return str(_store().get(key).decode())


@contextmanager
def released() -> Iterator[None]:
    """Tell the other processes, after the block, that no training is left."""
    try:
        yield
    finally:
        agreed(NO_CALL)


def part_ways() -> None:
    """End the connection that trainings opened: without it, the process that ends last would call the others dead."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def wait_for_all() -> None:
    """Wait until all processes of a training are here."""
    if count() > 1:
        from torch import distributed

        distributed.barrier()


def rows_each(training: Training, section: str = "") -> int:
    """Return how many rows of each batch a process has: the recipe's numbers are those of all processes together.

    Raises InputError, which names the ``section`` of the recipe, if they do not divide.
    """
    processes, where = count(), f"{section}." if section else ""
    each, rest = divmod(training.batch_size, processes)
    if rest:
        raise InputError(
            f"{where}batch_size={training.batch_size} does not divide among {processes} processes: make it a multiple "
            f"of {processes}, or start another number of processes."
        )
    if training.micro_batch and each % min(training.micro_batch, each):
        raise InputError(
            f"{where}micro_batch={training.micro_batch} does not divide the {each} rows of a batch that each of "
            f"{processes} processes has: set it to a divisor of {each}."
        )
    return each


def through(wrapper: Any, model: Any, forward: Callable[[], Result]) -> Result:
    """Return ``forward()``, called inside the forward pass of ``wrapper``, which exchanges gradients between processes.

    ``model`` is what it wraps. The wrapper notices no pass of the model, or of a part of it, but its own.
    """
    if wrapper is model:
        return forward()
    own = model.__dict__.get("forward")

    def restore() -> None:
        if own is None:
            model.__dict__.pop("forward", None)
        else:
            model.forward = own

    def once() -> Result:
        restore()  # the pass may well call the model's own
        return forward()

    model.forward = once
    try:
        result: Result = wrapper()
    finally:
        restore()
    return result
