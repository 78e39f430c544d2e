"""Several servers of one model, and how many requests each is given: against real ones on this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from constitutional_ai.errors import ModelError
from constitutional_ai.models.hosted import addresses, echo
from constitutional_ai.models.hosted.faults import seconds_of
from constitutional_ai.models.hosted.pace import FIRST, Pace
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.model import Sampling
from tests.models.hosted.local_server import ASKED, Server


class Overwhelmed(Exception):
    pass


def given(pace: Pace, *, capacity: int, requests: int, seconds: float = 0.01) -> int:
    """Asks a server that works on ``capacity`` requests at once; the most that it was given at once."""

    async def all_of_them() -> int:
        works, inside, most = asyncio.Semaphore(capacity), 0, 0

        async def one() -> None:
            nonlocal inside, most
            async with pace:
                inside += 1
                most = max(most, inside)
                async with works:
                    await asyncio.sleep(seconds)
                inside -= 1

        await asyncio.gather(*[one() for _ in range(requests)])
        return most

    return asyncio.run(all_of_them())


def test_the_limit_grows_as_long_as_the_rate_does() -> None:
    slow, fast = Pace(), Pace()
    given(slow, capacity=1, requests=200, seconds=0.005)
    most = given(fast, capacity=10_000, requests=1500, seconds=0.05)
    # Two at once gain nothing from the first; a busy machine may make that look otherwise for a while.
    assert slow.limit <= 8 * FIRST
    assert most >= 4 * FIRST


def test_never_more_at_once_than_the_limit_and_none_is_forgotten() -> None:
    pace = Pace()
    pace.limit, pace._climbing = 3, False
    assert given(pace, capacity=100, requests=50) <= FIRST


def test_an_overload_halves_the_limit_and_pauses_for_as_long_as_the_server_demands() -> None:
    async def asked() -> float:
        async with pace:
            pace.overloaded(0.2)
            for _ in range(5):  # told five times by requests that were under way at once
                pace.overloaded(0.1)
        began = time.monotonic()
        async with pace:
            return time.monotonic() - began

    pace = Pace()
    pace.limit = 64
    pace._answered = 1
    assert asyncio.run(asked()) > 0.15
    assert pace.limit == 32


def test_a_cancelled_waiter_passes_its_turn_on() -> None:
    async def asked() -> bool:
        pace = Pace()
        pace.limit = 1
        async with pace:
            waiting = [asyncio.create_task(pace.__aenter__()) for _ in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
        await asyncio.wait_for(waiting[1], 5)
        return waiting[0].cancelled()

    assert asyncio.run(asked())


@pytest.mark.parametrize(
    ("said", "seconds"), [("2", 2.0), ("1e9", 1e9), ("-3", 0.0), ("Wed, 21 Oct", 0.0), (None, 0.0)]
)
def test_retry_after_is_read(said: str | None, seconds: float) -> None:
    assert seconds_of(said) == pytest.approx(seconds, abs=0.5)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    monkeypatch.setattr(addresses, "BACKOFF_SECONDS", 0.01)
    with Server() as a, Server() as b, Server() as c:
        yield [a, b, c]


def ask(model: ServerModel, requests: int) -> list[str]:
    async def all_at_once() -> list[str]:
        asked = [model.generate(ASKED, Sampling(seed=n)) for n in range(requests)]
        return [completion.text for completion in await asyncio.gather(*asked)]

    return asyncio.run(all_at_once())


def urls(servers: list[Server]) -> str:
    return ",".join(server.url for server in servers)


def test_the_load_is_spread(three: list[Server]) -> None:
    assert ask(ServerModel("m", urls(three)), 24) == ["You said Hi"] * 24
    assert all(len(server.requests) >= 4 for server in three)


def test_a_dead_server_is_left_out_and_nothing_is_lost(three: list[Server]) -> None:
    gone, *rest = three
    model = ServerModel("m", urls(three))
    gone._http.server_close()  # refuses connections from now on
    assert ask(model, 24) == ["You said Hi"] * 24
    assert sum(len(server.requests) for server in rest) == 24
    assert [address.is_out for address in model._pool.addresses] == [True, False, False]
    assert ask(model, 6) == ["You said Hi"] * 6  # in another event loop, as each stage has its own


def test_when_all_servers_are_dead_there_is_one_sentence(three: list[Server]) -> None:
    for server in three:
        server._http.server_close()
    with pytest.raises(ModelError, match="Is the server running"):
        ask(ServerModel("m", urls(three)), 2)


def test_every_server_is_tested_before_it_scores(three: list[Server]) -> None:
    model = ServerModel("m", urls(three))
    assert asyncio.run(model.score("Is it so?", [" yes"])) == [-4.0]
    for server in three:
        assert len([r for r in server.requests if not r.get("echo")]) == len(echo.PROBES)
