"""Continuous batching: requests join an engine's batch and leave it at any of its steps.

An engine that caches prefixes finds in its cache only what it has read already. Requests that share a prefix and come
at once would each read it. So one of them, the leader, goes first, and the others follow when it has been read.
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
"""Blocks that a leader would save the next."""
REMEMBERED = 100_000
"""Blocks known to have been read. What the engine has forgotten since is read twice, and nothing else happens."""


class Stepped(NamedTuple, Generic[Result]):
    read: list[int]
    """Requests whose context has been read by now."""
    done: list[tuple[int, Result]]


class Engine(Protocol[RequestIn, Result]):
    """What answers many at once, step by step. All calls come from one thread at a time."""

    def add(self, number: int, request: RequestIn) -> None: ...

    def step(self) -> Stepped[Result]: ...

    def drop(self, number: int) -> None:
        """Nobody waits for this one any more. It may be done already."""
        ...


class _Asked(NamedTuple, Generic[Request, Result]):
    request: Request
    blocks: list[int]
    answer: asyncio.Future[Result]


class Continuous(Generic[Request, Result]):
    """Keeps an engine busy with at most ``size`` requests; ``tokens`` says what of a request may be shared."""

    def __init__(
        self, engine: Engine[Request, Result], *, tokens: Callable[[Request], Sequence[int]], size: int
    ) -> None:
        self._engine, self._tokens, self._size = engine, tokens, size
        self._waiting: list[_Asked[Request, Result]] = []
        self._running: dict[int, _Asked[Request, Result]] = {}
        self._prefixes = Prefixes()
        self._next = 0
        self._alone = threading.Lock()
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Result:
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(request, blocks_of(self._tokens(request)), answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        try:
            while self._waiting or self._running:
                self._settle(await asyncio.to_thread(self._step, self._unwanted(), self._admitted()))
        except Exception as error:  # every asker gets it
            for asked in [*self._running.values(), *self._waiting]:
                if not asked.answer.done():
                    asked.answer.set_exception(error)
            self._waiting = []
        finally:
            # On Ctrl-C as well: the engine must not go on with what nobody waits for.
            self._drop(list(self._running))
            for number in self._running:
                self._prefixes.read(number)
            self._running = {}

    def _step(self, unwanted: list[int], admitted: list[int]) -> Stepped[Result]:
        self._drop(unwanted)
        if not self._running:
            return Stepped([], [])
        with self._alone:
            for number in admitted:
                self._engine.add(number, self._running[number].request)
            return self._engine.step()

    def _drop(self, numbers: list[int]) -> None:
        with self._alone:
            for number in numbers:
                self._engine.drop(number)

    def _unwanted(self) -> list[int]:
        self._waiting = [a for a in self._waiting if not a.answer.done()]
        gone = [n for n, asked in self._running.items() if asked.answer.done()]
        for number in gone:
            self._prefixes.read(number)
            del self._running[number]
        return gone

    def _admitted(self) -> list[int]:
        """Numbers of the requests that join now."""
        joining, staying = [], []
        for asked in self._waiting:
            if len(self._running) >= self._size or self._prefixes.better_later(asked.blocks):
                staying.append(asked)
                continue
            self._next += 1
            self._running[self._next] = asked
            self._prefixes.reading(self._next, asked.blocks)
            joining.append(self._next)
        self._waiting = staying
        return joining

    def _settle(self, stepped: Stepped[Result]) -> None:
        for number in stepped.read:
            self._prefixes.read(number)
        for number, result in stepped.done:
            answer = self._running.pop(number).answer
            if not answer.done():
                answer.set_result(result)


class Prefixes:
    """Which contexts are being read, and which blocks of tokens have been."""

    def __init__(self) -> None:
        self._reading: dict[int, list[int]] = {}
        self._blocks_read: set[int] = set()
        self._blocks_in_work: Counter[int] = Counter()

    def better_later(self, blocks: Sequence[int]) -> bool:
        """Whether what is being read now would save this one enough."""
        known = next((i for i, block in enumerate(blocks) if block not in self._blocks_read), len(blocks))
        saved = blocks[known : known + WORTH_WAITING]
        return len(saved) == WORTH_WAITING and self._blocks_in_work[saved[-1]] > 0

    def reading(self, number: int, blocks: list[int]) -> None:
        self._reading[number] = blocks
        self._blocks_in_work.update(blocks)

    def read(self, number: int) -> None:
        blocks = self._reading.pop(number, [])
        self._blocks_in_work.subtract(blocks)
        self._blocks_in_work = +self._blocks_in_work
        if len(self._blocks_read) > REMEMBERED:
            self._blocks_read.clear()
        self._blocks_read.update(blocks)


def blocks_of(tokens: Sequence[int]) -> list[int]:
    """A number for each whole block, that stands for all tokens up to its end.

    >>> a, b = blocks_of([1] * 64), blocks_of([1] * 32 + [2] * 40)
    >>> len(a), len(b), a[0] == b[0], a[1] == b[1]
    (2, 2, True, False)
    """
    numbers: list[int] = []
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        numbers.append(hash((numbers[-1] if numbers else 0, *tokens[end - BLOCK : end])))
    return numbers
