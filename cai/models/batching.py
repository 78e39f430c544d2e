"""Gathers concurrent requests into batches for an engine that answers many at once.

Steps ask for one answer at a time; an in-process engine is fast only when it answers many together. The batcher
stands between them: whatever is asked while a batch runs waits, and becomes the next batch.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")

GATHER_SECONDS = 0.005
"""How long a first request waits for company. Nothing beside a forward pass."""


class _Pending(NamedTuple, Generic[Request, Result]):
    request: Request
    key: Hashable
    length: int
    answer: asyncio.Future[Result]


class Batcher(Generic[Request, Result]):
    """``run(requests, cancelled)`` answers a batch in a thread, in order, and looks at ``cancelled`` now and then.

    A batch holds requests of one ``key`` and of similar length (least padding), at most ``size`` of them, and fewer
    where their number times the greatest length would exceed ``padded``.
    """

    def __init__(
        self,
        run: Callable[[list[Request], threading.Event], list[Result]],
        *,
        size: int,
        key: Callable[[Request], Hashable],
        length: Callable[[Request], int],
        padded: int = sys.maxsize,
    ) -> None:
        self._run, self._size, self._key, self._length = run, size, key, length
        self._padded = padded
        self._pending: list[_Pending[Request, Result]] = []
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Result:
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(request, self._key(request), self._length(request), answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        cancelled = threading.Event()
        try:
            while batch := self._next_batch():
                await self._answer(batch, cancelled)
                await asyncio.sleep(GATHER_SECONDS)
        finally:
            # On Ctrl-C the thread would otherwise hold the process until its batch ends.
            cancelled.set()

    def _next_batch(self) -> list[_Pending[Request, Result]]:
        waiting = [p for p in self._pending if not p.answer.done()]
        if not waiting:
            self._pending = []
            return []
        longest = max(waiting, key=lambda p: p.length)
        alike = sorted((p for p in waiting if p.key == longest.key), key=lambda p: -p.length)
        batch = alike[: max(1, min(self._size, self._padded // max(1, longest.length)))]
        taken = set(map(id, batch))
        self._pending = [p for p in waiting if id(p) not in taken]
        return batch

    async def _answer(self, batch: list[_Pending[Request, Result]], cancelled: threading.Event) -> None:
        try:
            results = await asyncio.to_thread(self._run, [p.request for p in batch], cancelled)
            answered = list(zip(batch, results, strict=True))
        except Exception as error:  # every asker of this batch gets it; the runner decides what it means
            for p in batch:
                if not p.answer.done():
                    p.answer.set_exception(error)
            return
        for p, result in answered:
            if not p.answer.done():
                p.answer.set_result(result)
