"""Run the loop that makes the records of every stage. No other code writes record files.

The loop skips the records that ``records.jsonl`` already has and appends each new one as it finishes. Failures go to
``failures.jsonl``, and the tokens that they cost to ``lost.jsonl``, which no session deletes; the loop stops only when
there are more than ``max_failures``.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from constitutional_ai.errors import BrokenReply, RecordError, TooManyFailures
from constitutional_ai.records import Failure, Usage, total, uncounted, usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.meter import metered
from constitutional_ai.runs.rows import RowIndex, RowWriter, StoredRows, read_rows
from constitutional_ai.runs.shards import Part
from constitutional_ai.safe_text import whole_characters

Item = TypeVar("Item")


class HasId(Protocol):
    """A record."""

    @property
    def id(self) -> str: ...


Row = TypeVar("Row", bound=HasId)


class Progress(Protocol):
    """A display of a stage's progress."""

    def start(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` records, or steps of a training, are done."""

    def advance(self, stage: str, tokens: Usage, *, failed: bool) -> None:
        """Show that one more record was made or failed, and the tokens it cost."""

    def finish(self, stage: str) -> None:
        """Show that the stage is complete."""


class Silent:
    """A display that shows nothing."""

    def start(self, stage: str, done: int, total: int) -> None: ...
    def advance(self, stage: str, tokens: Usage, *, failed: bool) -> None: ...
    def finish(self, stage: str) -> None: ...


class StageRows(NamedTuple, Generic[Row]):
    """The records of a stage."""

    records: StoredRows[Row]
    """The records stand in the order of the items."""
    failures: int
    tokens: Usage
    """Cost of all records and of all that failed, including those of earlier sessions, and ``Pass.spent``."""
    counted: bool = True
    """Whether the models said how many tokens every record took."""


class Pass(NamedTuple, Generic[Item, Row]):
    """Some items of a stage, and the step that makes a record from one."""

    items: Mapping[str, Item]
    """The items, keyed by the id of the record that is made from each."""
    step: Callable[[Item], Awaitable[Row]]
    spent: Usage = Usage(0, 0)
    """Tokens spent before the pass on calls outside the stage's records, such as the gate questions."""


async def run_rows(
    folder: Path,
    passes: AsyncIterable[Pass[Item, Row]],
    row_type: type[Row],
    *,
    concurrency: int,
    max_failures: int,
    progress: Progress,
    file: str = layout.RECORDS,
    budget: Budget | None = None,
    say: Callable[[str], object] = lambda text: None,
    part: Part | None = None,
    failed_elsewhere: Callable[[], int] = lambda: 0,
) -> StageRows[Row]:
    """Make one record for every item of every pass; in a shard, of its ``part`` of the items.

    Passes run one after another, so that a generator of passes can load a model for each and free it afterwards. A
    record is not kept in memory once it is written. ``say`` is told when a model's tokens are not counted. Raises
    TooManyFailures once more than ``max_failures`` records have failed, or if there are items and all have failed;
    BudgetSpent when ``budget`` allows no further record and none is in progress; and TokensUnknown. The records that
    ``failed_elsewhere``, in other shards, count as failed here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index, budget = RowIndex(folder / file, row_type), budget or Budget()
    budget.add_spent(index.tokens, index.dearest, len(index))
    if index.uncounted:
        budget.add_unknown(index.uncounted)
    names: list[str] = []
    spent_beside = Usage(0, 0)
    failures = folder / (layout.FAILURES if file == layout.RECORDS else f"failed-{file}")
    failures.unlink(missing_ok=True)  # records that failed in an earlier session are tried again
    lost = folder / (layout.LOST if file == layout.RECORDS else f"lost-{file}")
    lost_before = total(read_rows(lost, Usage))
    budget.add_spent(sum(lost_before))
    with (
        RowWriter(folder / file, row_type) as writer,
        RowWriter(failures, Failure) as failure_writer,
        RowWriter(lost, Usage) as lost_writer,
    ):
        loop = _Loop(
            folder, failures, index, writer, failure_writer, lost_writer, budget, progress, max_failures, say,
            failed_elsewhere, lost=lost_before,
        )  # fmt: skip
        async with _closing(passes):
            async for items, step, spent in passes:
                items = part.of(items) if part else items
                spent_beside = total((spent_beside, spent))
                budget.add_spent(sum(spent))
                names += items
                progress.start(folder.name, sum(name in index for name in names), len(names))
                missing = ((name, item) for name, item in items.items() if name not in index)
                await _all_of([loop.work(step, missing) for _ in range(concurrency)])
                del step, missing  # they hold the pass's model, which must be freed before the next is loaded
    if not any(loop.lost):
        lost.unlink()
    if not loop.failed:
        failures.unlink()
    elif not part and not any(name in index for name in names):
        raise all_failed(folder.name, loop.failed, failures)
    if part:
        part.write(folder)
    progress.finish(folder.name)
    # Records were appended as they finished; the order that later stages read must not depend on timing.
    tokens = total((spent_beside, loop.lost, index.sort_file(names)))
    return StageRows(StoredRows(folder / file, row_type), len(loop.failed), tokens, index.uncounted is None)


def lost_tokens(folder: Path) -> Usage:
    """Return the tokens of all records of a stage that failed, those beside its output included."""
    return total(row for name in (layout.LOST, layout.GATE_LOST) for row in read_rows(folder / name, Usage))


@dataclass
class _Loop(Generic[Row]):
    """The state that the workers of one stage share."""

    folder: Path
    failures: Path
    index: RowIndex
    writer: RowWriter[Row]
    failure_writer: RowWriter[Failure]
    lost_writer: RowWriter[Usage]
    budget: Budget
    progress: Progress
    max_failures: int
    say: Callable[[str], object]
    failed_elsewhere: Callable[[], int]
    failed: list[Failure] = field(default_factory=list)
    lost: Usage = field(default_factory=lambda: Usage(0, 0))
    """Tokens of the records that failed, in all sessions, as far as they are known."""

    async def work(self, step: Callable[[Item], Awaitable[Row]], missing: Iterator[tuple[str, Item]]) -> None:
        """Take items one at a time from ``missing``, which all workers share, until there are none."""
        for name, item in missing:
            await self.budget.reserve(self.folder.name)
            tokens, finished = Usage(0, 0), False
            with metered() as meter:
                try:
                    record = await step(item)
                    tokens, finished = usage(record), True
                except RecordError as error:
                    tokens = meter.tokens
                    if not isinstance(
                        error, BrokenReply
                    ):  # no answer came, so the earlier ones are not to blame
                        meter.forget()
                    message = whole_characters(str(error))  # it may quote half an emoji
                    self._keep(Failure(name, type(error).__name__, message), error, tokens)
                    continue
                finally:
                    self.budget.charge(tokens, allowed=meter.allowed, known=finished or any(tokens))
            if record.id != name:
                raise AssertionError(f"step made record {record.id!r} for item {name!r}")
            self.index.add(name, self.writer.append(record), tokens)
            meter.forget()  # the record holds what was drawn for it
            self.progress.advance(self.folder.name, tokens, failed=False)
            if model := uncounted(record):
                self._note_uncounted(model)

    def _note_uncounted(self, model: str) -> None:
        self.budget.add_unknown(model)
        self.budget.check_counted()
        if self.index.uncounted is None:
            self.index.uncounted = model
            self.say(f"{model} does not say how many tokens it reads and writes, so they are not counted.")

    def _keep(self, failure: Failure, error: RecordError, tokens: Usage) -> None:
        self.failed.append(failure)
        self.failure_writer.append(failure)
        if any(tokens):
            self.lost = total((self.lost, tokens))
            self.lost_writer.append(tokens)
        self.progress.advance(self.folder.name, tokens, failed=True)
        if (count := len(self.failed) + self.failed_elsewhere()) > self.max_failures:
            raise too_many(count, self.folder.name, failure, self.failures) from error


def all_failed(stage: str, failed: Sequence[Failure], file: Path) -> TooManyFailures:
    """Return the error of a stage in which every record failed."""
    return TooManyFailures(
        f"nothing was made in {stage}: all {len(failed)} records failed, {_last(failed[-1])}. "
        f"See {file}; remove the cause, then type the same command."
    )


def too_many(count: int, stage: str, last: Failure, file: Path) -> TooManyFailures:
    """Return the error of a stage in which more records failed than are allowed."""
    return TooManyFailures(
        f"{count} records of {stage} failed, {_last(last)}. See {file}; set max_failures higher to continue."
    )


def _last(failure: Failure) -> str:
    return f"the last with {failure.error}: {failure.message}"


@asynccontextmanager
async def _closing(passes: AsyncIterable[Any]) -> AsyncIterator[None]:
    """Close the passes after the block, so that a model is let go in its own event loop, however the block ends."""
    try:
        yield
    finally:
        if isinstance(passes, AsyncGenerator):
            await passes.aclose()


async def _all_of(workers: list[Coroutine[Any, Any, None]]) -> None:
    """Run the workers together. If several fail, raise only one error: they usually share a cause."""
    try:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker)
    except BaseExceptionGroup as errors:
        raise next(_leaves(errors)) from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        yield from _leaves(error) if isinstance(error, BaseExceptionGroup) else (error,)
