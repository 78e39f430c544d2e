"""Gather concurrent requests into batches.

Callers send one request at a time, but an in-process engine is fast only when it answers many together. Requests that
arrive while a batch runs wait for one of the next batches.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from constitutional_ai.engine.open import common_prefix, release_threads

Request = TypeVar("Request")
Result = TypeVar("Result")

GATHER_SECONDS = 0.005
"""How long the first request waits for others. Negligible compared with a forward pass."""
ALIKE = 64
"""Common prefixes of fewer tokens are ignored, and lengths of prefixes are compared in steps of this size."""
STEP_TOKENS = 64
"""Fixed cost of one decode step, whatever the batch size, in units of one prefilled token."""
BATCH_COST = 256
"""Fixed cost of prefilling a batch (the shared prefix, then the suffixes), in the same unit."""


class _Pending(NamedTuple, Generic[Request, Result]):
    request: Request
    key: Hashable
    length: int
    prompt: Sequence[int]
    steps: int
    answer: asyncio.Future[Result]


class Batcher(Generic[Request, Result]):
    """A queue that answers requests in batches: ``run(requests, cancelled)`` returns their results, in a thread.

    A batch holds at most ``size`` requests with the same ``key``, a common prefix and similar lengths (least padding).
    Its padded size, with the common prefix counted once, is at most ``max_tokens``. Of the possible batches with the
    longest request, the one with the lowest cost per request is run. ``cancelled`` is set when no caller waits for the
    batch any more.
    """

    def __init__(
        self,
        run: Callable[[list[Request], threading.Event], Sequence[Result]],
        *,
        size: int,
        key: Callable[[Request], Hashable],
        length: Callable[[Request], int],
        prompt: Callable[[Request], Sequence[int]] = lambda request: (),
        steps: Callable[[Request], int] = lambda request: 0,
        max_tokens: int = sys.maxsize,
    ) -> None:
        """Set how requests are batched.

        ``length`` returns all tokens of a request, including those to be generated; ``steps`` the number that is
        decoded one after another; ``prompt`` the tokens whose prefix the request may share with others.
        """
        self._run, self._size, self._key, self._length = run, size, key, length
        self._prompt, self._steps, self._max_tokens = prompt, steps, max_tokens
        self._pending: list[_Pending[Request, Result]] = []
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Result:
        """Return the result for ``request`` once its batch has run. Raises what ``run`` raises."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        facts = (self._key(request), self._length(request), self._prompt(request), self._steps(request))
        self._pending.append(_Pending(request, *facts, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        while batch := self._next_batch():
            await self._run_in_thread(batch)
            await asyncio.sleep(GATHER_SECONDS)

    def _next_batch(self) -> list[_Pending[Request, Result]]:
        self._pending = [p for p in self._pending if not p.answer.done()]
        if not self._pending:
            return []
        longest = max(self._pending, key=lambda p: p.length)
        alike = [(_shared_length(longest, p), p) for p in self._pending if p.key == longest.key]
        alike.sort(key=lambda each: (-(each[0] // ALIKE), -each[1].length))
        costs = list(_costs(alike[: self._size], self._max_tokens))
        cheapest = max(i for i, cost in enumerate(costs) if cost == min(costs))
        batch = [p for _, p in alike[: cheapest + 1]]
        taken = set(map(id, batch))
        self._pending = [p for p in self._pending if id(p) not in taken]
        return batch

    async def _run_in_thread(self, batch: list[_Pending[Request, Result]]) -> None:
        release_threads()  # torch's threads of this thread, from loading a model or training
        cancelled = threading.Event()
        try:
            results = await asyncio.to_thread(self._run, [p.request for p in batch], cancelled)
            for p, result in zip(batch, results, strict=True):
                if not p.answer.done():
                    p.answer.set_result(result)
        except Exception as error:  # every caller gets it, and decides how to handle it
            for p in batch:
                if not p.answer.done():
                    p.answer.set_exception(error)
        finally:
            # On Ctrl-C the thread would otherwise hold the process until its batch ends.
            cancelled.set()


def _shared_length(one: _Pending[Request, Result], other: _Pending[Request, Result]) -> int:
    """Return the length of the common prefix; 0 if it is too short to be worth sharing."""
    shared = common_prefix(one.prompt, other.prompt)
    return shared if shared >= ALIKE else 0


def _costs(alike: Sequence[tuple[int, _Pending[Request, Result]]], max_tokens: int) -> Iterator[float]:
    """Yield the cost per request, in tokens, of the batches of the first 1, 2, … requests, within ``max_tokens``."""
    (shared, longest), tokens = alike[0], 0
    for count, (shared_with_this, pending) in enumerate(alike, start=1):
        shared, tokens = min(shared, shared_with_this), tokens + pending.length
        if count > 1 and shared + count * (longest.length - shared) > max_tokens:
            return
        yield (tokens - (count - 1) * shared + pending.steps * STEP_TOKENS + BATCH_COST) / count
