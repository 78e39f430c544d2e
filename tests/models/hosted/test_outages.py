"""What a server does to a run that goes away, comes back, hangs, drips, floods, or sends it elsewhere."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import BrokenReply, ModelError, RecordError
from constitutional_ai.models.hosted import addresses, bounded
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.load import loaded_in_loop
from constitutional_ai.models.model import Sampling
from tests.faulty_server import FaultyServer, Script
from tests.models.hosted.local_server import ASKED


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of hundredths of a second."""
    monkeypatch.setattr(addresses, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(addresses, "LONGEST_BACKOFF_SECONDS", 0.03)
    monkeypatch.setattr(addresses, "VISIBLE_OUTAGE_SECONDS", 0.05)
    monkeypatch.setattr(addresses, "CLOSE_SECONDS", 0.1)


def serving(*script: str) -> FaultyServer:
    """A server whose first replies are faults, one each."""
    return FaultyServer(Script(script))


async def ask(model: ServerModel, number: int = 0) -> str:
    return (await model.generate(ASKED, Sampling(seed=number))).text


def answers(server: FaultyServer, times: int = 1, told: list[str] | None = None) -> list[str]:
    """The answers of a new model to some requests, one after another."""
    model = ServerModel("m", server.url, (told if told is not None else []).append)

    async def in_turn() -> list[str]:
        return [await ask(model, n) for n in range(times)]

    return asyncio.run(in_turn())


ONCE = ("status 500", "status 502", "status 503", "status 504", "status 429", "reset", "half", "json", "no choices",
        "nested", "number", "flood", "huge", "compressed")  # fmt: skip


@pytest.mark.parametrize("fault", ONCE)
def test_a_fault_that_passes_costs_one_more_request(fault: str) -> None:
    with serving("", fault) as server:
        first, second = answers(server, 2)
    assert first and second
    assert server.received == 3


@pytest.mark.parametrize("fault", ["status 502", "status 504", "reset"])
def test_an_outage_after_an_answer_is_sat_out_and_said_once(fault: str) -> None:
    told: list[str] = []
    with serving("", *[fault] * 10) as server:
        assert len(answers(server, 2, told)) == 2
    assert server.received == 12
    assert [text.partition(" ")[2][:40] for text in told[:1]] == [f"{server.url} no longer answers."[:40]]
    assert "goes on by itself" in told[0]
    assert "answers again, after" in told[1]
    assert len(told) == 2


def test_an_outage_that_lasts_too_long_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "OUTAGE_SECONDS", 0.2)
    with (
        serving("", *["reset"] * 1000) as server,
        pytest.raises(ModelError, match=r"start the server again, then type the same command"),
    ):
        answers(server, 2)


def test_a_server_that_never_answered_stops_the_run_soon() -> None:
    with serving(*["reset"] * 1000) as server, pytest.raises(ModelError, match="Is the server running"):
        answers(server)
    assert server.received == addresses.FIRST_TRIES


def test_a_request_that_breaks_the_connection_alone_fails_its_record() -> None:
    """Others are answered all the while, so this is no outage."""
    with FaultyServer(lambda number, request: "reset" if request["seed"] == 7 else "") as server:
        model = ServerModel("m", server.url)

        async def both() -> str:
            await ask(model)
            poisoned = asyncio.create_task(ask(model, 7))
            while not poisoned.done():
                await ask(model)
            return await poisoned

        with pytest.raises(RecordError, match="answers others"):
            asyncio.run(both())


def test_a_request_that_no_longer_moves_is_sent_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SILENT_SECONDS", 1.0)
    told: list[str] = []
    with serving("hang") as server:
        assert answers(server, 1, told)
    assert told == [f"{server.url} has left a request without an answer: it is sent again."]


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_request_that_never_ends_fails_its_record(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SILENT_SECONDS", 0.15)
    monkeypatch.setattr(bounded, "TOTAL_SECONDS", 0.3)
    with serving(*[fault] * 9) as server, pytest.raises(BrokenReply, match="no answer"):
        answers(server)
    assert server.received <= 2


def test_a_socket_that_nobody_reads_any_more_is_noticed_by_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop is made to forget the socket, as happens when another one of its number is closed."""
    monkeypatch.setattr(bounded, "SILENT_SECONDS", 1.0)
    with FaultyServer(lambda number, request: "late" if number == 1 else "") as server:
        model = ServerModel("m", server.url)

        async def forgotten() -> str:
            await ask(model)
            asked = asyncio.create_task(ask(model))
            while server.received < 2:
                await asyncio.sleep(0.01)
            loop: Any = asyncio.get_running_loop()
            for key in list(loop._selector.get_map().values()):
                if key.fd != loop._ssock.fileno():  # by which threads wake the loop
                    loop._selector.unregister(key.fileobj)
            return await asked

        assert asyncio.run(asyncio.wait_for(forgotten(), 10))
    assert server.received == 3


def test_a_broken_reply_is_sent_to_another_address() -> None:
    with FaultyServer(lambda number, request: "json") as broken, serving() as whole:
        model = ServerModel("m", f"{broken.url},{whole.url}")

        async def in_turn() -> list[str]:
            return [await ask(model, n) for n in range(6)]

        assert all(asyncio.run(in_turn()))
    assert broken.received <= 6 <= whole.received


@pytest.mark.parametrize("fault", ["redirect 301", "redirect 307"])
def test_a_redirect_is_not_followed_and_named(fault: str) -> None:
    with FaultyServer(lambda number, request: fault) as server:
        with pytest.raises(RecordError, match=r"redirects to http://127\.0\.0\.1:9/other: name that address"):
            answers(server)
        assert server.received == 4


def test_a_flood_takes_no_more_memory_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends a gigabyte, or as much as is taken."""
    monkeypatch.setattr(bounded, "REPLY_BYTES", 10_000)
    with FaultyServer(lambda number, request: "flood") as server:
        with pytest.raises(RecordError, match="longer than"):
            answers(server)
        assert server.sent_in_floods < 4 * 20_000_000  # what sockets hold


# -- clients


def open_sockets() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_clients_are_closed_where_their_model_is_let_go() -> None:
    with serving() as server:

        async def several() -> list[int]:
            counts = []
            for _ in range(8):
                async with loaded_in_loop(f"server:m@{server.url}") as model:
                    await model.generate(ASKED, Sampling())
                counts.append(open_sockets())
            return counts

        counts = asyncio.run(several())
    assert max(counts) <= counts[0] + 2  # the server, in this process too, closes its end a little later


def test_a_model_that_is_dropped_unclosed_stalls_no_other_in_the_same_loop() -> None:
    with serving() as server:

        async def several() -> None:
            for _ in range(5):
                model = ServerModel("m", server.url)
                await asyncio.gather(*[ask(model, n) for n in range(8)])
                del model
                gc.collect()

        asyncio.run(asyncio.wait_for(several(), 20))
