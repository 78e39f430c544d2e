"""Run the steps of the method against a server that meets a share of all requests with faults.

``python benchmarks/torture_servers.py`` makes 10,000 calls with 30 % faults and as many without, 1,000 in a piece, and
prints what became of every record, the time and the memory; the exit status is 1 where a promise of
docs/reliability.md is broken. See ``pieces.py`` for ``SECONDS`` and for going on. ``--at-once 2000 --piece 8000 --calls
8000 --share 0`` sends 2,000 requests at once, where this package would send 512 at the most.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pieces import Pieces, cpu_seconds, most_megabytes
from constitutional_ai.errors import TooManyFailures
from constitutional_ai.models.cached import cached
from constitutional_ai.models.counted import counted
from constitutional_ai.models.hosted import addresses, bounded, pace
from constitutional_ai.models.load import loaded_in_loop
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Completion, Failure, Message, Prompt, Response
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.runner import Pass, Silent, run_rows
from tests.faulty_server import FAULTS, REFUSAL, WAIT_SECONDS, FaultyServer, Seeded

CALLS_OF_A_RECORD = 4
"""Two texts, of which the second follows from the first, and two questions for a letter."""
FACTOR = 2.0
"""Times the duration without faults that a run may take beside the waits that the server demands."""
MOST_MEGABYTES = 1500


@dataclass
class Outcome:
    """What became of the records of one run."""

    items: int
    made: int
    failed: int
    reasons: list[str]
    wrong: list[str]
    """Records with a text or a label that the server never gave for them."""
    repeated: int
    """Requests that were sent again although they had been answered."""
    met: dict[str, int]
    received: int
    seconds: float


def torture(
    folder: Path,
    *,
    calls: int,
    share: float,
    concurrency: int,
    seconds: float = 0.0,
    faults: Sequence[str] = FAULTS,
    seed: int = 0,
) -> Outcome:
    """Make ``calls`` / 4 records, of which a ``share`` of all requests fails; ``seconds`` is the time of an answer.

    ``seed`` draws the faults.
    """
    items = calls // CALLS_OF_A_RECORD
    with FaultyServer(Seeded(share, seed, faults), seconds=seconds, text=_text) as server:
        began = time.monotonic()
        with suppress(TooManyFailures):
            asyncio.run(make_records(folder, server.url, items, concurrency))
        took = time.monotonic() - began
        answered = Counter(server.answered)
    made = list(read_rows(folder / "records.jsonl", Response))
    failures = list(read_rows(folder / "failures.jsonl", Failure))
    return Outcome(
        items,
        len(made),
        len(failures),
        [failure.message for failure in failures],
        [row.id for row in made if row.text not in _right(row.id)],
        sum(count - 1 for request, count in answered.items() if not _is_probe(request)),
        server.met,
        server.received,
        took,
    )


def _text(request: dict[str, Any]) -> str:
    """The server repeats the last turn, so that an answer to another request shows."""
    return f"You said: {request['messages'][-1]['content']}"


def _right(name: str) -> set[str]:
    """Return all texts that a record may hold: a refusal, or nothing, is an answer; there is one right label."""
    firsts = {f"You said: Item {name}.", REFUSAL, ""}
    seconds = {f"You said: Once more: {first}".strip() for first in firsts} | {REFUSAL, ""}
    return {f"{second} A0.731 A0.731" for second in seconds}


def _is_probe(request: str) -> bool:
    return "Item" not in request


async def make_records(folder: Path, url: str, items: int, concurrency: int) -> None:
    """Make so many records with the server at ``url``, resuming what is in the folder."""
    name = f"server:m@{url}"

    async def passes() -> AsyncIterator[Pass[str, Response]]:
        async with loaded_in_loop(name) as model:
            with cached(model, name, folder / "calls.sqlite", print) as kept:
                asked: Any = counted(kept)

                async def step(item: str) -> Response:
                    return await _record(asked, item)

                yield Pass({str(n): str(n) for n in range(items)}, step)

    await run_rows(folder, passes(), Response, concurrency=concurrency, max_failures=items, progress=Silent())


async def _record(model: Any, item: str) -> Response:
    prompt = (Message("user", f"Item {item}."),)
    first = await model.generate(prompt, Sampling(seed=int(item)))
    again = (Message("user", f"Once more: {first.text}"),)
    second = await model.generate(again, Sampling(seed=int(item) + 10**6))
    labels = []
    for order in ("AB", "BA"):
        reading = await model.letters((Message("user", f"Item {item}, {order}?"),), "AB")
        labels.append(f"A{reading.probabilities[0]:.3f}")
    text = f"{second.text} {' '.join(labels)}"
    return Response(item, Prompt.of(prompt, "helpful", "torture"), Completion(text, model.name, "stop", 1, 1))


def piece(chosen: argparse.Namespace, number: int) -> dict[str, Any]:
    """Run with and without faults, print both, and return the figures, with the promises that are broken."""
    how = {"calls": chosen.piece, "concurrency": chosen.concurrency, "seconds": 0.05}
    before = cpu_seconds()
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as faulty:
        without = torture(Path(plain), share=0.0, **how)
        outcome = torture(Path(faulty), share=chosen.share, seed=number, **how)
    megabytes = most_megabytes()
    _show(without, outcome, megabytes)
    waits = outcome.met.get("wait", 0) * WAIT_SECONDS + 2 * bounded.TOTAL_SECONDS * addresses.RETRIES
    broken = {
        "a record is neither made nor failed": outcome.made + outcome.failed != outcome.items,
        "a record is not made without faults": without.made != without.items,
        "a record holds what was not answered": bool(outcome.wrong),
        "a failure has no reason": not all(outcome.reasons),
        "an answered request was sent again": outcome.repeated > 0,
        "it took too long": outcome.seconds > FACTOR * without.seconds + waits,
        "it took too much memory": megabytes > MOST_MEGABYTES,
    }
    return {
        "calls": chosen.piece,
        "made": outcome.made,
        "failed": outcome.failed,
        "wrong": len(outcome.wrong),
        "repeated": outcome.repeated,
        "requests": outcome.received,
        "seconds": outcome.seconds,
        "seconds_without_faults": without.seconds,
        "cpu_seconds": cpu_seconds() - before,
        "megabytes": megabytes,
        "met": outcome.met,
        "reasons": Counter(re.sub(r"\d+", "N", reason)[:90] for reason in outcome.reasons),
        "broken": [promise for promise, is_broken in broken.items() if is_broken],
    }


def main() -> int:
    """Make pieces until there were enough calls or time is up, and return 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--piece", type=int, default=1_000, help="calls of a piece")
    parser.add_argument("--concurrency", type=int, default=2_000, help="records that are worked on at once")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument(
        "--at-once", type=int, help="requests at once; by default the package finds their number"
    )
    chosen = parser.parse_args()
    # A request that hangs is given up after 10 s instead of 600, so that the run ends today.
    bounded.SILENT_SECONDS, bounded.TOTAL_SECONDS = 10.0, 20.0
    if chosen.at_once:
        pace.FIRST = pace.HIGHEST = chosen.at_once
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the server's sockets are in this process too
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pieces = Pieces("torture_servers", **{k: v for k, v in vars(chosen).items() if k != "calls"})
    numbers = pieces.next_numbers()
    while pieces.total("calls") < chosen.calls and (number := next(numbers, None)) is not None:
        pieces.add(**piece(chosen, number))
    pieces.print_line("calls", chosen.calls)
    broken = Counter(promise for one in pieces.figures for promise in one["broken"])
    for promise, times in broken.items():
        print(f"BROKEN in {times} pieces: {promise}")
    return int(bool(broken))


def _show(without: Outcome, outcome: Outcome, megabytes: float) -> None:
    lines = [
        f"without faults: {without.made} of {without.items} records, {without.seconds:.1f} s",
        f"with faults: {outcome.made} made and {outcome.failed} failed of {outcome.items} records, "
        f"{outcome.received} requests, {outcome.seconds:.1f} s, {megabytes:.0f} MB at the most with the server",
        "faults: " + ", ".join(f"{count} {fault}" for fault, count in sorted(outcome.met.items())),
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
