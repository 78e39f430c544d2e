"""Memory for tensors lies in huge pages where the system has them. In a process of its own, which it changes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.engine.cpu import memory

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FILLED = """
import resource, torch
from constitutional_ai.engine.cpu.memory import huge_pages
huge_pages()
kept = [torch.ones(2**18) for _ in range(256)]  # 1 MB each
del kept
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
again = [torch.ones(2**18) for _ in range(256)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, "faults")
print(open("/proc/self/smaps").read())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_what_is_freed_is_used_again_and_lies_in_huge_pages() -> None:
    ran = subprocess.run([sys.executable, "-c", FILLED], capture_output=True, text=True, check=True)
    faults = int(ran.stdout.split()[0])
    assert faults < 1000  # a MB at a time from the system, it would be 65,536
    if HUGE.exists() and "[never]" not in HUGE.read_text():
        huge = sum(int(size) for size in re.findall(r"AnonHugePages:\s+(\d+) kB", ran.stdout))
        assert huge > 200 * 1024


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._heap.__wrapped__() is None


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked for as Linux does")
@given(st.lists(st.integers(1, 300), max_size=20))
def test_what_an_arena_gives_is_zeros_of_its_own_at_the_beginning_of_a_line(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "PIECE", 512)
        arena = memory.Arena()
        given_ = [arena.take(size) for size in sizes]
    for n, (size, taken) in enumerate(zip(sizes, given_, strict=True)):
        assert size <= len(taken) < size + 64 and taken.data_ptr() % 64 == 0
        assert not taken.any()
        taken.fill_(n + 1)
    assert all((taken == n + 1).all() for n, taken in enumerate(given_))
