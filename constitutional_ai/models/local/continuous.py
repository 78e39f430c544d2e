"""Feeds engines with continuous batching (vLLM, OpenVINO): requests join their batch and leave it at any step.

A cache of prefixes holds only what was prefilled already, so concurrent requests that share a prefix would each prefill
it. One of them, the leader, therefore goes first, and the others follow when it is prefilled.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from constitutional_ai.models.batching import GATHER_SECONDS

Request = TypeVar("Request")
RequestIn = TypeVar("RequestIn", contravariant=True)
Result = TypeVar("Result")

BLOCK = 32
"""Tokens; engines cache prefixes by blocks of 16 to 128."""
WORTH_WAITING = 2
"""Blocks that a leader must save the others."""
REMEMBERED = 100_000
"""Blocks known to be prefilled. One that the engine has forgotten is prefilled twice, nothing worse."""


class Stepped(NamedTuple, Generic[Result]):
    """What a step of the engine has finished, by the numbers of requests."""

    prefilled: list[int]
    """Requests whose context is prefilled by now."""
    done: list[tuple[int, Result]]


class SteppedEngine(Protocol[RequestIn, Result]):
    """Answers many requests at once, step by step. All calls come from one thread at a time."""

    def add(self, number: int, request: RequestIn) -> None: ...

    def step(self) -> Stepped[Result]: ...

    def drop(self, number: int) -> None:
        """Stop a request that nobody waits for any more. It may be done already."""
        ...


class _Waiting(NamedTuple, Generic[Request, Result]):
    request: Request
    blocks: list[int]
    answer: asyncio.Future[Result]


class Continuous(Generic[Request, Result]):
    """Keeps an engine busy with at most ``size`` requests; ``tokens`` are those whose prefix a request may share."""

    def __init__(
        self, engine: SteppedEngine[Request, Result], *, tokens: Callable[[Request], Sequence[int]], size: int
    ) -> None:
        self._engine, self._tokens, self._size = engine, tokens, size
        self._waiting: list[_Waiting[Request, Result]] = []
        self._running: dict[int, _Waiting[Request, Result]] = {}
        self._unwanted: list[int] = []
        """Requests that the engine has, and nobody waits for."""
        self._prefixes = BlocksInWork()
        self._next = 0
        self._alone = threading.Lock()
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Result:
        """Return the result for ``request``. Raises what the engine raises."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(request, blocks_of(self._tokens(request)), answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        try:
            while self._waiting or self._running:
                self._withdraw()
                self._settle(await asyncio.to_thread(self._step, self._admitted()))
        except Exception as error:  # every asker gets it
            for each in [*self._running.values(), *self._waiting]:
                if not each.answer.done():
                    each.answer.set_exception(error)
            self._waiting = []
        finally:
            # On Ctrl-C as well: the engine must not continue what nobody waits for.
            self._leave()

    def _step(self, admitted: list[int]) -> Stepped[Result]:
        with self._alone:
            self._drop_unwanted()
            if not self._running:  # after an interrupt too, which does not stop this thread
                return Stepped([], [])
            for number in admitted:
                self._engine.add(number, self._running[number].request)
            return self._engine.step()

    def _drop_unwanted(self) -> None:
        while self._unwanted:
            self._engine.drop(self._unwanted.pop())

    def _withdraw(self) -> None:
        """Take out the requests that nobody waits for. The next step drops them, or an interrupt before it."""
        self._waiting = [w for w in self._waiting if not w.answer.done()]
        for number in [n for n, running in self._running.items() if running.answer.done()]:
            self._prefixes.prefilled(number)
            del self._running[number]
            self._unwanted.append(number)

    def _leave(self) -> None:
        """Take everything out of the engine."""
        with self._alone:
            for number in self._running:
                self._prefixes.prefilled(number)
            self._unwanted += self._running
            self._running = {}
            self._drop_unwanted()

    def _admitted(self) -> list[int]:
        """Return the numbers of the requests that join now."""
        joining, staying = [], []
        for waiting in self._waiting:
            if len(self._running) >= self._size or self._prefixes.better_later(waiting.blocks):
                staying.append(waiting)
                continue
            self._next += 1
            self._running[self._next] = waiting
            self._prefixes.started(self._next, waiting.blocks)
            joining.append(self._next)
        self._waiting = staying
        return joining

    def _settle(self, stepped: Stepped[Result]) -> None:
        for number in stepped.prefilled:
            self._prefixes.prefilled(number)
        for number, result in stepped.done:
            answer = self._running.pop(number).answer
            if not answer.done():
                answer.set_result(result)


class BlocksInWork:
    """Knows which contexts are being prefilled, and which blocks of tokens have been."""

    def __init__(self) -> None:
        self._started: dict[int, list[int]] = {}
        self._done: set[int] = set()
        self._in_work: Counter[int] = Counter()

    def better_later(self, blocks: Sequence[int]) -> bool:
        """Return whether waiting for what is prefilled now saves a request with these ``blocks`` enough."""
        known = next((i for i, block in enumerate(blocks) if block not in self._done), len(blocks))
        saved = blocks[known : known + WORTH_WAITING]
        return len(saved) == WORTH_WAITING and self._in_work[saved[-1]] > 0

    def started(self, number: int, blocks: list[int]) -> None:
        """Note that a request joins."""
        self._started[number] = blocks
        self._in_work.update(blocks)

    def prefilled(self, number: int) -> None:
        """Note that a request's context is prefilled, or that the request has left."""
        blocks = self._started.pop(number, [])
        self._in_work.subtract(blocks)
        self._in_work = +self._in_work
        if len(self._done) > REMEMBERED:
            self._done.clear()
        self._done.update(blocks)


def blocks_of(tokens: Sequence[int]) -> list[int]:
    """Return a number for each whole block, which stands for all tokens up to its end.

    >>> a, b = blocks_of([1] * 64), blocks_of([1] * 32 + [2] * 40)
    >>> len(a), len(b), a[0] == b[0], a[1] == b[1]
    (2, 2, True, False)
    """
    numbers: list[int] = []
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        numbers.append(hash((numbers[-1] if numbers else 0, *tokens[end - BLOCK : end])))
    return numbers
