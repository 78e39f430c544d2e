"""Fewer threads beside programs that keep processors busy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from constitutional_ai.engine.cpu import neighbours
from constitutional_ai.engine.cpu.neighbours import FEW_TOKENS, Neighbours, threads_for


class Clock:
    """The times that ``Neighbours`` reads, as a test sets them."""

    def __init__(self, patch: pytest.MonkeyPatch, stat: Path) -> None:
        self.now = self.ours = 0.0
        self._stat = stat
        self.together(0)
        patch.setattr(neighbours, "STAT", stat)
        patch.setattr(neighbours, "TICKS", 100)
        patch.setattr(neighbours.time, "monotonic", lambda: self.now)
        patch.setattr(neighbours.time, "process_time", lambda: self.ours)

    def together(self, seconds: float) -> None:
        """Set the seconds of all processes; idle time and waiting are none of them."""
        self._stat.write_text(f"cpu {int(seconds * 100)} 0 0 99999 777 0 0 5 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return Clock(monkeypatch, tmp_path / "stat")


@pytest.mark.parametrize(
    ("together", "ours", "taken"),
    [(2.0, 2.0, 0.0), (2.0, 0.5, 1.5), (4.0, 1.0, 3.0), (1.0, 1.2, 0.0)],
    ids=["alone", "beside one and a half", "beside many", "rounded by ticks"],
)
def test_what_others_take_is_all_work_but_our_own(
    clock: Clock, together: float, ours: float, taken: float
) -> None:
    company = Neighbours()
    clock.now, clock.ours = 1.0, ours
    clock.together(together)
    assert company.look() == pytest.approx(taken)


def test_they_are_looked_at_now_and_then(clock: Clock) -> None:
    company = Neighbours()
    clock.together(10)
    clock.now = neighbours.SECONDS / 2
    assert company.look() == 0
    clock.now = neighbours.SECONDS
    assert company.look() == pytest.approx(10 / neighbours.SECONDS)


def test_a_system_that_tells_nothing_counts_as_quiet(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "STAT", Path("/no/such/file"))
    company = Neighbours()
    clock.now, clock.ours = 1.0, 0.3
    assert company.look() == 0


@pytest.mark.parametrize(
    ("tokens", "processors", "taken", "threads"),
    [
        (1, 2, 0.0, 2),
        (1, 2, 0.4, 2),
        (1, 2, 0.5, 1),
        (1, 2, 2.0, 1),
        (FEW_TOKENS - 1, 2, 1.0, 1),
        (FEW_TOKENS, 2, 1.0, 2),
        (1, 64, 3.0, 2),
        (1, 64, 63.0, 1),
        (1, 1, 1.0, 1),
    ],
)
def test_small_steps_have_no_more_threads_than_others_leave_processors(
    monkeypatch: pytest.MonkeyPatch, tokens: int, processors: int, taken: float, threads: int
) -> None:
    monkeypatch.setattr(Neighbours, "look", lambda _: taken)
    monkeypatch.setattr(neighbours.os, "cpu_count", lambda: processors)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(tokens):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), threads_for(tokens):
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
