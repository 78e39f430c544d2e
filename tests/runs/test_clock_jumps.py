"""A clock that jumps, forward and back, decides nothing: not what is made, in which order, or when a run stops."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import cycle
from pathlib import Path

import pytest

from constitutional_ai.records import Completion, Message, Prompt, Response
from constitutional_ai.runs import layout
from constitutional_ai.runs import run as run_module
from constitutional_ai.runs.budget import BudgetSpent
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.runner import Pass, Silent

PACKAGE = Path(__file__).parents[2] / "constitutional_ai"
DAYS = (0, 400, -4000, 1, -1, 30_000)
CLOCK = re.compile(
    r"\b(time\.(time|time_ns|localtime|gmtime|ctime|strftime)|date(time)?\.(now|today|utcnow))\("
)
DATES_ONLY = {
    "run.py",  # when a stage was complete
    "study.py",  # when somebody answered
    "measure_engines.py",  # when it was measured
    "addresses.py",  # since when a server is away, for people
    "faults.py",  # a date in Retry-After; waits are bounded
}
PROMPT = Prompt.of((Message("user", "Hi"),), "helpful", "test")


def jumps() -> Iterator[datetime]:
    """The time of a clock that somebody sets, a jump at each look."""
    for days in cycle(DAYS):
        yield datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days)


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    times = jumps()

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return next(times).astimezone(tz)

    monkeypatch.setattr(time, "time", lambda: next(times).timestamp())
    monkeypatch.setattr(time, "time_ns", lambda: int(next(times).timestamp() * 1e9))
    monkeypatch.setattr(run_module, "datetime", Jumping)


def make(folder: Path, tokens: int) -> None:
    """Make 12 records of 10 tokens each."""

    async def step(name: str) -> Response:
        return Response(name, PROMPT, Completion("x", "m", "stop", 9, 1))

    async def passes() -> AsyncIterator[Pass[str, Response]]:
        yield Pass({str(n): str(n) for n in range(12)}, step)

    with open_run(folder, {layout.RECIPE: "seed: 0\n"}, Silent()) as run:
        budget = run.budget(tokens, None, excluding="")
        run.make_rows(layout.RESPONSES, Response, passes, config={}, inputs={}, budget=budget)


def test_a_run_whose_clock_jumps_makes_the_same_records_and_stops_at_the_same_budget(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make(tmp_path / "whole", 1000)
    request.getfixturevalue("jumping")
    for tokens in (55, 90):
        with pytest.raises(BudgetSpent, match=f"{tokens // 10 * 10} tokens"):
            make(tmp_path / "run", tokens)
    make(tmp_path / "run", 1000)
    both = [tmp_path / name / layout.RESPONSES / layout.RECORDS for name in ("whole", "run")]
    assert both[0].read_bytes() == both[1].read_bytes()


def test_only_dates_that_people_read_come_from_a_clock_that_can_be_set() -> None:
    users = {path.name for path in PACKAGE.rglob("*.py") if CLOCK.search(path.read_text(encoding="utf-8"))}
    assert users == DATES_ONLY
