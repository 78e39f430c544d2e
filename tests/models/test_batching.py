from __future__ import annotations

import asyncio
import threading
import time
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.engine.open import common_prefix
from constitutional_ai.models.batching import Batcher


class Ask(NamedTuple):
    key: str
    text: str


class Engine:
    """Answers in capitals and remembers its batches."""

    def __init__(self, size: int = 4, padded: int = 1000) -> None:
        self.batches: list[list[Ask]] = []
        self.batcher = Batcher(
            self.run, size=size, key=lambda a: a.key, length=lambda a: len(a.text), max_tokens=padded
        )

    def run(self, asks: list[Ask], cancelled: threading.Event) -> list[str]:
        self.batches.append(asks)
        return [ask.text.upper() for ask in asks]

    def ask_all(self, *asks: Ask) -> list[object]:
        async def together() -> list[object]:
            return await asyncio.gather(*[self.batcher.ask(a) for a in asks], return_exceptions=True)

        async def soon() -> list[object]:
            return await asyncio.wait_for(together(), timeout=5)

        return asyncio.run(soon())


def test_everyone_gets_his_own_answer_whatever_the_batches() -> None:
    asks = [Ask("ab"[n % 2], "x" * (n * 7 % 23) + str(n)) for n in range(50)]
    assert Engine().ask_all(*asks) == [a.text.upper() for a in asks]


def test_a_batch_holds_one_key_and_no_more_than_its_size() -> None:
    engine = Engine(size=4)
    engine.ask_all(*[Ask("ab"[n % 2], str(n)) for n in range(20)])
    assert all(len({a.key for a in batch}) == 1 for batch in engine.batches)
    assert max(map(len, engine.batches)) == 4
    assert len(engine.batches) == 6  # 10 of each key, 4 + 4 + 2


def test_a_batch_holds_requests_of_similar_length() -> None:
    engine = Engine(size=2)
    engine.ask_all(*[Ask("a", "x" * n) for n in (1, 100, 2, 99, 50, 51)])
    assert [[len(a.text) for a in batch] for batch in engine.batches] == [[100, 99], [51, 50], [2, 1]]


def test_one_long_request_does_not_make_a_whole_batch_as_long() -> None:
    engine = Engine(size=8, padded=100)
    engine.ask_all(*[Ask("a", "x" * n) for n in (500, 60, 40, *[10] * 20)])
    assert [[len(a.text) for a in batch] for batch in engine.batches] == [
        [500], [60], [40, 10], *[[10] * 8] * 2, [10] * 3
    ]  # fmt: skip


def test_what_is_asked_while_a_batch_runs_becomes_the_next_batch() -> None:
    engine = Engine(size=8)
    started = threading.Event()

    def slow(asks: list[Ask], cancelled: threading.Event) -> list[str]:
        started.set()
        time.sleep(0.05)
        return engine.run(asks, cancelled)

    engine.batcher = Batcher(slow, size=8, key=lambda a: a.key, length=lambda a: len(a.text))

    async def late(text: str) -> str:
        await asyncio.to_thread(started.wait)
        return await engine.batcher.ask(Ask("a", text))

    async def all_of() -> list[str]:
        return await asyncio.gather(engine.batcher.ask(Ask("a", "first")), late("x"), late("y"), late("z"))

    assert asyncio.run(all_of()) == ["FIRST", "X", "Y", "Z"]
    assert [len(batch) for batch in engine.batches] == [1, 3]


def test_an_error_reaches_every_asker_of_its_batch_and_nobody_else() -> None:
    engine = Engine()

    def run(asks: list[Ask], cancelled: threading.Event) -> list[str]:
        if asks[0].key == "bad":
            raise RuntimeError("out of memory")
        return engine.run(asks, cancelled)

    engine.batcher = Batcher(run, size=4, key=lambda a: a.key, length=lambda a: len(a.text))
    answers = engine.ask_all(Ask("bad", "x"), Ask("good", "y"), Ask("bad", "z"))
    assert [str(a) for a in answers] == ["out of memory", "Y", "out of memory"]


def test_an_engine_that_answers_too_few_leaves_nobody_waiting() -> None:
    engine = Engine()
    engine.batcher = Batcher(lambda asks, _: ["one"], size=4, key=lambda a: a.key, length=lambda a: len(a.text))
    first, second = engine.ask_all(Ask("a", "x"), Ask("a", "y"))
    assert first == "one" and isinstance(second, ValueError)


def test_a_request_that_nobody_waits_for_any_more_is_not_answered() -> None:
    engine = Engine()

    async def give_up() -> str:
        given_up = asyncio.create_task(engine.batcher.ask(Ask("a", "given up")))
        await asyncio.sleep(0)
        given_up.cancel()
        return await engine.batcher.ask(Ask("a", "kept"))

    assert asyncio.run(give_up()) == "KEPT"
    assert [a.text for batch in engine.batches for a in batch] == ["kept"]


def test_a_batcher_serves_one_event_loop_after_another() -> None:
    engine = Engine()
    assert engine.ask_all(Ask("a", "x")) == ["X"]
    assert engine.ask_all(Ask("a", "y")) == ["Y"]


def test_when_the_loop_ends_a_running_batch_is_told_to_stop() -> None:
    told: list[bool] = []

    def run(asks: list[Ask], cancelled: threading.Event) -> list[str]:
        told.append(cancelled.wait(timeout=20))
        return ["late"] * len(asks)

    batcher = Batcher(run, size=4, key=lambda a: 0, length=lambda a: 1)

    async def interrupted() -> None:
        asking = asyncio.create_task(batcher.ask(Ask("a", "x")))
        await asyncio.sleep(0.05)
        assert not asking.done()
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(interrupted())
    assert told == [True]
    assert time.monotonic() - began < 5


# -- what requests share


class Sharing(Engine):
    """Counts letters as tokens, and shares what texts begin with. ``steps`` are generated one after another."""

    def __init__(self, steps: int = 0, size: int = 8, padded: int = 10_000) -> None:
        super().__init__()
        self.batcher = Batcher(
            self.run,
            size=size,
            key=lambda a: a.key,
            length=lambda a: len(a.text) + steps,
            prompt=lambda a: [ord(letter) for letter in a.text],
            steps=lambda a: steps,
            max_tokens=padded,
        )

    def initials(self) -> list[str]:
        return ["".join(a.text[0] for a in batch) for batch in self.batches]


SHOTS = {letter: letter * 500 for letter in "abc"}


def test_a_batch_holds_requests_that_begin_alike_though_others_are_as_long() -> None:
    engine = Sharing()
    engine.ask_all(*[Ask("", SHOTS["abc"[n % 3]] + "x" * n) for n in range(9)])
    assert engine.initials() == ["ccc", "bbb", "aaa"]
    assert [len(a.text) for a in engine.batches[0]] == [508, 505, 502]


def test_what_is_shared_counts_once_against_the_memory() -> None:
    engine = Sharing(padded=1000)
    engine.ask_all(*[Ask("", SHOTS["a"] + "x" + "yz"[n % 2] * 60) for n in range(16)])
    assert [len(batch) for batch in engine.batches] == [8, 8]  # 501 and 8 × 60, not 8 × 561
    engine = Sharing(padded=1000)
    engine.ask_all(*[Ask("", chr(97 + n) * 561) for n in range(4)])
    assert [len(batch) for batch in engine.batches] == [1] * 4


def test_many_steps_are_shared_by_more_rows_rather_than_a_beginning_by_fewer() -> None:
    """Two rows of a long beginning are read fast, but generate as slowly as eight."""
    asks = [Ask("", chr(97 + n % 4) * 300 + "x" * n) for n in range(8)]
    scoring, generating = Sharing(steps=0), Sharing(steps=200)
    scoring.ask_all(*asks)
    generating.ask_all(*asks)
    assert [len(batch) for batch in scoring.batches] == [2] * 4
    assert [len(batch) for batch in generating.batches] == [8]


def test_a_beginning_that_only_two_share_is_not_worth_a_batch_of_their_own() -> None:
    """A pair in both orders shares 70 of 160 tokens, all pairs 32: reading two at a time costs more than it saves."""
    engine = Sharing(size=64)
    engine.ask_all(*[Ask("", "c" * 32 + chr(100 + n // 2) * 38 + chr(200 + n) * 90) for n in range(32)])
    assert [len(batch) for batch in engine.batches] == [32]


def test_short_beginnings_change_no_order() -> None:
    engine = Sharing(size=2)
    engine.ask_all(*[Ask("", "ab"[n % 2] * 30 + "x" * n) for n in range(4)])
    assert [[len(a.text) for a in batch] for batch in engine.batches] == [[33, 32], [31, 30]]


@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=20))
def test_the_common_beginning_is_the_longest(a: list[int], b: list[int]) -> None:
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]
