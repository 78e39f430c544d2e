"""Share the rows of every batch among processes, so that any number of them makes the same optimiser steps.

accelerate gives each process a batch of its own and fills an epoch's last ones up with rows from its start, which then
count twice. Here the last rows are shared as evenly as they can be. A process that has one fewer than another gets a
row that counts for nothing, because all must take part in the exchange of gradients, and TRL exchanges scores, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler

from constitutional_ai.training import processes

Row = dict[str, Any]


class Shares(Sampler[list[int]]):
    """The micro-batches of one process. An index below 0 is ``~i`` of a row ``i`` that counts for nothing."""

    def __init__(self, order: Any, micro_batch: int, rank: int, count: int) -> None:
        """``order`` yields an epoch's rows in an order that is the same in all processes."""
        self._order, self._together = order, micro_batch * count
        self._rank, self._count = rank, count

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(self._order)
        for start in range(0, len(rows), self._together):
            yield share(rows[start : start + self._together], self._rank, self._count)

    def __len__(self) -> int:
        return -(-len(self._order) // self._together)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        if hasattr(self._order, "set_epoch"):
            self._order.set_epoch(epoch)


def share(rows: Sequence[int], rank: int, count: int) -> list[int]:
    """Return the rows of one of ``count`` processes: consecutive, and as many as any other has.

    >>> [share([5, 6, 7, 8, 9], rank, 2) for rank in (0, 1)]
    [[5, 6, 7], [8, 9, -6]]
    """
    each, rest = divmod(len(rows), count)
    begin = rank * each + min(rank, rest)
    own = list(rows[begin : begin + each + (rank < rest)])
    return own + [~rows[0]] * (rest > 0 and rank >= rest)


class WithWeightless(Dataset[Row]):
    """Rows, and under ``~i`` the row ``i`` as ``weightless`` changes it."""

    def __init__(self, rows: Any, weightless: Callable[[Row], Row]) -> None:
        self._rows, self._weightless = rows, weightless

    def __getitem__(self, index: int) -> Row:
        row: Row = self._rows[index] if index >= 0 else self._weightless(self._rows[~index])
        return row

    def __len__(self) -> int:
        return len(self._rows)


class EpochLoader(DataLoader[Row]):
    """A loader whose epochs have orders of their own, also after it was resumed."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


if TYPE_CHECKING:
    Trainer = Any
else:
    Trainer = object


class SharedBatches(Trainer):  # type: ignore[misc]
    """The part of a trainer that shares its batches; a class in front of TRL's. In one process all is as it was."""

    def weightless(self, row: Row) -> Row:
        """Return a row that changes neither loss nor gradients."""
        raise NotImplementedError

    def get_train_dataloader(self) -> Any:
        """Return this process's micro-batches."""
        if processes.count() == 1:
            return super().get_train_dataloader()
        order = self._get_train_sampler()
        if isinstance(order, RandomSampler):  # as accelerate does, in any number of processes
            order = SeedableRandomSampler(self.train_dataset)
        else:
            order.generator = torch.Generator().manual_seed(self.args.seed)
        shares = Shares(order, self._train_batch_size, processes.rank(), processes.count())
        rows = WithWeightless(self.train_dataset, self.weightless)
        return EpochLoader(
            rows,
            batch_sampler=shares,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
