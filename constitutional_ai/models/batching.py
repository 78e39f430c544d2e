"""Gathers concurrent requests into batches for an engine that answers many at once.

Steps ask for one answer at a time; an in-process engine is fast only when it answers many together. The batcher
stands between them: whatever is asked while a batch runs takes the places of those that are answered, where the engine
can do that and it fits, and else becomes the next batch.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from constitutional_ai.engine.cpu.threads import give_back_threads
from constitutional_ai.engine.pieces import common

Request = TypeVar("Request")
Result = TypeVar("Result")

GATHER_SECONDS = 0.005
"""How long a first request waits for company. Nothing beside a forward pass."""
LIKE = 64
"""Tokens: beginnings that differ in length by less are taken as alike, and what is shorter as none."""
STEP = 64
"""What one step of generating costs a batch however few its rows are, counted in tokens read."""
READ = 256
"""The same of reading what its rows share, and what each has of its own."""
BATCHES = 4
"""Times its size a batch may grow to as others join it: what does not fit must not wait for ever."""


class _Pending(NamedTuple, Generic[Request, Result]):
    request: Request
    key: Hashable
    length: int
    begins: Sequence[int]
    steps: int
    answer: asyncio.Future[Result]


class Batch(Generic[Request, Result]):
    """Requests that are answered together. For the thread that answers them."""

    def __init__(
        self,
        pending: list[_Pending[Request, Result]],
        joining: Callable[[Batch[Request, Result], list[int]], list[_Pending[Request, Result]]],
    ) -> None:
        self.pending, self._joining = pending, joining
        self.cancelled = threading.Event()
        """To be looked at now and then: nobody waits for the batch any more."""
        self.answered: set[int] = set()
        """Numbers of requests."""
        self._loop = asyncio.get_running_loop()

    @property
    def requests(self) -> list[Request]:
        return [p.request for p in self.pending]

    def more(self, beginning: list[int]) -> list[Request]:
        """Takes in what was asked meanwhile, begins so and goes on, and is no longer than what the batch began with."""
        joined = self._joining(self, beginning)
        self.pending += joined
        return [p.request for p in joined]

    def answer(self, number: int, result: Result) -> None:
        """Of the request with this number. It hears of it at once."""
        self.answered.add(number)
        with suppress(RuntimeError):  # the loop has ended, and with it who asked
            self._loop.call_soon_threadsafe(_answer, self.pending[number].answer, result)

    def answer_all(self, results: Sequence[Result]) -> None:
        for number, result in zip(range(len(self.pending)), results, strict=True):
            self.answer(number, result)


def _answer(answer: asyncio.Future[Result], result: Result) -> None:
    if not answer.done():
        answer.set_result(result)


class Batcher(Generic[Request, Result]):
    """``run(batch)`` answers all requests of a batch, in a thread.

    At a time it holds at most ``size`` requests of one ``key``, of a common beginning and of similar length (least
    padding), and fewer where their number times the greatest length, what they share counted once, would exceed
    ``padded``. Of all batches that the longest request can be in, the one is taken that costs least a request.
    """

    def __init__(
        self,
        run: Callable[[Batch[Request, Result]], None],
        *,
        size: int,
        key: Callable[[Request], Hashable],
        length: Callable[[Request], int],
        begins: Callable[[Request], Sequence[int]] = lambda request: (),
        steps: Callable[[Request], int] = lambda request: 0,
        padded: int = sys.maxsize,
    ) -> None:
        """``length`` counts all tokens, those to come too; ``steps`` those that are generated one after another.

        ``begins`` are the tokens whose beginning a request may share with others.
        """
        self._run, self._size, self._key, self._length = run, size, key, length
        self._begins, self._steps, self._padded = begins, steps, padded
        self._pending: list[_Pending[Request, Result]] = []
        self._lock = threading.Lock()
        """Held while ``_pending`` changes: a batch takes of it in its own thread."""
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Result:
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        of_it = (self._key(request), self._length(request), self._begins(request), self._steps(request))
        with self._lock:
            self._pending.append(_Pending(request, *of_it, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        while batch := self._next_batch():
            try:
                await self._run_in_thread(batch)
            finally:
                # On Ctrl-C the thread would otherwise hold the process until its batch ends.
                batch.cancelled.set()
            await asyncio.sleep(GATHER_SECONDS)

    def _next_batch(self) -> Batch[Request, Result] | None:
        with self._lock:
            self._pending = [p for p in self._pending if not p.answer.done()]
            if not self._pending:
                return None
            longest = max(self._pending, key=lambda p: p.length)
            alike = [(_shared(longest, p), p) for p in self._pending if p.key == longest.key]
            alike.sort(key=lambda each: (-(each[0] // LIKE), -each[1].length))
            costs = list(_costs(alike[: self._size], self._padded))
            cheapest = max(i for i, cost in enumerate(costs) if cost == min(costs))
            return Batch(self._taken([p for _, p in alike[: cheapest + 1]]), self._joining)

    def _taken(self, pending: list[_Pending[Request, Result]]) -> list[_Pending[Request, Result]]:
        taken = set(map(id, pending))
        self._pending = [p for p in self._pending if id(p) not in taken]
        return pending

    def _joining(self, batch: Batch[Request, Result], beginning: list[int]) -> list[_Pending[Request, Result]]:
        first, begun = batch.pending[0], len(beginning)
        longest = max(p.length for p in batch.pending)
        size = min(self._size, max(0, self._padded - begun) // max(1, longest - begun))
        room = size - (len(batch.pending) - len(batch.answered))
        room = min(room, BATCHES * self._size - len(batch.pending))
        joined: list[_Pending[Request, Result]] = []
        with self._lock:
            for p in self._pending:
                if len(joined) >= room:
                    break
                fits = not p.answer.done() and p.key == first.key and p.length <= longest
                if fits and len(p.begins) > begun and list(p.begins[:begun]) == beginning:
                    joined.append(p)
            return self._taken(joined)

    async def _run_in_thread(self, batch: Batch[Request, Result]) -> None:
        give_back_threads()  # those that this thread loaded a model or trained with
        try:
            await asyncio.to_thread(self._run, batch)
            if left := len(batch.pending) - len(batch.answered):
                raise RuntimeError(f"{left} of {len(batch.pending)} requests were not answered")
        except Exception as error:  # every asker that has no answer gets it; the runner decides what it means
            for number, p in enumerate(batch.pending):
                if number not in batch.answered and not p.answer.done():
                    p.answer.set_exception(error)


def _shared(one: _Pending[Request, Result], other: _Pending[Request, Result]) -> int:
    """How many tokens of a beginning that is worth sharing."""
    shared = common(one.begins, other.begins)
    return shared if shared >= LIKE else 0


def _costs(alike: Sequence[tuple[int, _Pending[Request, Result]]], padded: int) -> Iterator[float]:
    """What a request costs, in tokens, among the first one, the first two, … as long as memory allows."""
    (shared, longest), read = alike[0], 0
    for count, (of_this, pending) in enumerate(alike, start=1):
        shared, read = min(shared, of_this), read + pending.length
        if count > 1 and shared + count * (longest.length - shared) > padded:
            return
        yield (read - (count - 1) * shared + pending.steps * STEP + READ) / count
