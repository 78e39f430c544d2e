"""The one loop over records: every step of the method runs in it, and only it knows of files.

It skips what ``records.jsonl`` already has, appends each record as it finishes, keeps what failed in
``failures.jsonl`` and goes on, and stops with a clear error past ``max_failures``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from constitutional_ai.errors import RecordError, TooManyFailures
from constitutional_ai.records import Failure, Usage, usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.row_index import RowIndex
from constitutional_ai.runs.rows import RowWriter, StoredRows

Item = TypeVar("Item")


class HasId(Protocol):
    @property
    def id(self) -> str: ...


Row = TypeVar("Row", bound=HasId)


class Progress(Protocol):
    """What a stage tells while it runs."""

    def start(self, stage: str, done: int, total: int) -> None: ...
    def advance(self, stage: str, tokens: Usage, *, failed: bool) -> None: ...
    def step(self, stage: str, done: int, total: int) -> None: ...
    def finish(self, stage: str) -> None: ...


class Silent:
    """No progress shown."""

    def start(self, stage: str, done: int, total: int) -> None: ...
    def advance(self, stage: str, tokens: Usage, *, failed: bool) -> None: ...
    def step(self, stage: str, done: int, total: int) -> None: ...
    def finish(self, stage: str) -> None: ...


class StageRows(NamedTuple, Generic[Row]):
    """What ``run_rows`` made."""

    records: StoredRows[Row]
    """In the order of the items."""
    failures: int
    tokens: Usage
    """Of all records, also of those that an earlier session made, and of what went before the passes."""


class Pass(NamedTuple, Generic[Item, Row]):
    """Some of a stage's records, by the id that each will have, and the step that makes one."""

    items: Mapping[str, Item]
    step: Callable[[Item], Awaitable[Row]]
    spent: Usage = Usage(0, 0)
    """Tokens that went before it on what is no record of the stage, as the questions of the gate."""


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
) -> StageRows[Row]:
    """One record for every item of every pass. A pass begins when the one before has ended, so that a generator of
    passes may load a model for each and let it go. No record is held in memory once it is written.

    Raises TooManyFailures once more than ``max_failures`` records have failed, and BudgetSpent where ``budget`` holds
    too little for one more record; nothing is then in work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = RowIndex(folder / file, row_type)
    budget = budget or Budget()
    budget.add_spent(made.tokens, made.largest)
    wanted: list[str] = []
    beside = Usage(0, 0)
    failures = folder / (layout.FAILURES if file == layout.RECORDS else f"failed-{file}")
    failures.unlink(missing_ok=True)  # what failed before is owed again
    failed: list[Failure] = []

    with RowWriter(folder / file, row_type) as done, RowWriter(failures, Failure) as kept:

        async def work(step: Callable[[Item], Awaitable[Row]], owed: Iterator[tuple[str, Item]]) -> None:
            for name, item in owed:
                await budget.reserve(folder.name)
                tokens = Usage(0, 0)
                try:
                    record = await step(item)
                    tokens = usage(record)
                except RecordError as error:
                    failed.append(Failure(name, type(error).__name__, str(error)))
                    kept.append(failed[-1])
                    progress.advance(folder.name, Usage(0, 0), failed=True)
                    if len(failed) > max_failures:
                        raise TooManyFailures(_too_many(folder, failed)) from error
                    continue
                finally:
                    budget.charge(tokens)
                if record.id != name:
                    raise AssertionError(f"step made record {record.id!r} for item {name!r}")
                made.add(name, done.append(record), tokens)
                progress.advance(folder.name, tokens, failed=False)

        async for items, step, spent in passes:
            beside = _sum(beside, spent)
            budget.add_spent(sum(spent))
            wanted += items
            progress.start(folder.name, sum(name in made for name in wanted), len(wanted))
            owed = ((name, item) for name, item in items.items() if name not in made)
            await _all_of([work(step, owed) for _ in range(concurrency)])
            del step, owed  # and the pass's model with them, before the next one is loaded
    if not failed:
        failures.unlink()
    progress.finish(folder.name)
    # Rows came in the order of finishing; what later stages read must not depend on timing.
    return StageRows(StoredRows(folder / file, row_type), len(failed), _sum(beside, made.sort_file(wanted)))


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(one.prompt_tokens + other.prompt_tokens, one.completion_tokens + other.completion_tokens)


async def _all_of(workers: list[Coroutine[Any, Any, None]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker)
    except BaseExceptionGroup as errors:
        # Workers die of one cause; the user reads one sentence, and a bug keeps its own traceback.
        raise next(_leaves(errors)) from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        yield from _leaves(error) if isinstance(error, BaseExceptionGroup) else (error,)


def _too_many(folder: Path, failed: list[Failure]) -> str:
    last = failed[-1]
    return (
        f"{len(failed)} records of {folder.name} failed, the last with {last.error}: {last.message}. "
        f"See {folder / layout.FAILURES}; set max_failures higher to go on."
    )
