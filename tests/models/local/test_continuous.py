"""Test with an engine that needs two steps for each request: one to prefill, one to answer."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.models.local.continuous import BLOCK, BlocksInWork, Continuous, Stepped, blocks_of

SHOTS = list(range(3 * BLOCK))
"""A prefix that many requests share."""


class TwoSteps:
    def __init__(self) -> None:
        self.running: dict[int, list[int]] = {}
        self.read: set[int] = set()
        self.steps: list[list[int]] = []
        """Last tokens of the requests that each step read."""
        self.dropped: list[int] = []

    def add(self, number: int, request: list[int]) -> None:
        self.running[number] = request

    def step(self) -> Stepped[int]:
        done = [(n, self.running.pop(n)[-1]) for n in sorted(self.read)]
        self.read = set(self.running)
        self.steps.append([request[-1] for request in self.running.values()])
        return Stepped(sorted(self.read), done)

    def drop(self, number: int) -> None:
        self.dropped.append(number)
        self.running.pop(number, None)
        self.read.discard(number)


def answers(engine: Any, *requests: list[int], size: int = 99) -> list[int]:
    async def together() -> list[int]:
        continuous: Continuous[list[int], int] = Continuous(engine, tokens=lambda r: r, size=size)
        return await asyncio.gather(*[continuous.ask(r) for r in requests])

    return asyncio.run(together())


def test_of_those_that_share_a_prefix_one_is_read_first_and_then_the_rest_at_once() -> None:
    engine = TwoSteps()
    assert answers(engine, *[[*SHOTS, n] for n in range(500, 510)]) == list(range(500, 510))
    assert [step for step in engine.steps if step] == [[500], list(range(501, 510))]


def test_each_prefix_has_its_own_leader_and_what_shares_none_does_not_wait() -> None:
    engine, other = TwoSteps(), [7] * (2 * BLOCK)
    answers(engine, [*SHOTS, 1], [*SHOTS, 2], [*other, 3], [*other, 4], [5])
    assert engine.steps[:2] == [[1, 3, 5], [2, 4]]


def test_a_prefix_that_was_read_before_needs_no_leader_again() -> None:
    engine = TwoSteps()
    continuous: Continuous[list[int], int] = Continuous(engine, tokens=lambda r: r, size=99)

    async def twice() -> None:
        await continuous.ask([*SHOTS, 1])
        engine.steps.clear()
        await asyncio.gather(*[continuous.ask([*SHOTS, n]) for n in (2, 3, 4)])

    asyncio.run(twice())
    assert engine.steps[0] == [2, 3, 4]


def test_no_more_than_its_size_are_in_the_engine_and_all_are_answered() -> None:
    engine = TwoSteps()
    assert answers(engine, *[[n] for n in range(10)], size=3) == list(range(10))
    assert max(map(len, engine.steps)) == 3


def test_who_gives_up_is_dropped_and_the_others_are_answered() -> None:
    engine = TwoSteps()
    continuous: Continuous[list[int], int] = Continuous(engine, tokens=lambda r: r, size=99)

    async def one_gives_up() -> int:
        leaving = asyncio.create_task(continuous.ask([*SHOTS, 1]))
        staying = asyncio.create_task(continuous.ask([*SHOTS, 2]))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(one_gives_up()) == 2
    assert not engine.running


class Stuck(ThreadPoolExecutor):
    """Starts so many calls, and leaves the next one in its queue."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls, self.full = calls, asyncio.Event()

    def submit(self, *call: Any, **named: Any) -> Future[Any]:
        if self.calls:
            self.calls -= 1
            return super().submit(*call, **named)
        self.full.set()
        return Future()


@pytest.mark.parametrize("gives_up", [False, True], ids=["who waits", "who gave up"])
@pytest.mark.parametrize("steps", [1, 3])
def test_an_interrupt_takes_everything_out_of_the_engine(steps: int, gives_up: bool) -> None:
    class Endless(TwoSteps):
        def step(self) -> Stepped[int]:
            self.steps.append([])
            if gives_up and len(self.steps) == steps:
                loop.call_soon_threadsafe(asking.cancel)  # before the loop hears that the step is done
            return Stepped([], [])

    async def interrupted() -> None:
        nonlocal loop, asking
        loop, threads = asyncio.get_running_loop(), Stuck(steps)
        loop.set_default_executor(threads)
        continuous: Continuous[list[int], int] = Continuous(engine, tokens=lambda r: r, size=99)
        asking = asyncio.create_task(continuous.ask([1]))
        await threads.full.wait()

    engine = Endless()
    loop: asyncio.AbstractEventLoop
    asking: asyncio.Task[int]
    asyncio.run(interrupted())
    assert engine.dropped == [1]
    assert not engine.running


def test_what_breaks_the_engine_reaches_everyone_who_waits() -> None:
    class Broken(TwoSteps):
        def step(self) -> Stepped[int]:
            raise MemoryError("no more")

    with pytest.raises(MemoryError):
        answers(Broken(), [1], [2])


TOKENS = st.lists(st.integers(0, 1), max_size=4).map(lambda bits: [b for b in bits for _ in range(BLOCK)])


@given(TOKENS, TOKENS)
def test_blocks_are_the_same_as_far_as_the_tokens_are(a: list[int], b: list[int]) -> None:
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    blocks = list(zip(blocks_of(a), blocks_of(b), strict=False))
    assert [x == y for x, y in blocks] == [i < same // BLOCK for i in range(len(blocks))]


def test_a_short_common_beginning_is_not_worth_waiting_for() -> None:
    prefixes = BlocksInWork()
    prefixes.started(1, blocks_of(SHOTS))
    assert prefixes.better_later(blocks_of(SHOTS))
    assert not prefixes.better_later(blocks_of(SHOTS[:BLOCK] + [9] * 2 * BLOCK))
