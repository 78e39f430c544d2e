"""Settings of the whole process: only the command line makes them. Each test has a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FILLED = """
from constitutional_ai.engine.open import tune_process
tune_process()
import resource, torch
from constitutional_ai.engine.cpu.process import advise_huge_pages
advise_huge_pages()
kept = [torch.ones(2**18) for _ in range(256)]  # 1 MB each
del kept
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
again = [torch.ones(2**18) for _ in range(256)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, "faults")
print(open("/proc/self/smaps").read())
"""
KEPT = """
from constitutional_ai.engine.open import tune_process
tune_process()
from constitutional_ai import machine
def held():
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS:")) // 1024
first = held()
blocks = [bytearray(b"x") * 2**20 for _ in range(300)]  # 1 MB each
last = bytearray(b"x") * 2**20  # above them, so that the heap does not shrink by itself
del blocks
kept = held()
machine.release_memory()
print(first, kept, held())
"""
IMPORTED = """
import os
before = dict(os.environ)
import constitutional_ai
import constitutional_ai.cli, constitutional_ai.engine.open
assert dict(os.environ) == before
"""
COMMAND = """
import os, sys
from constitutional_ai.cli import main
main(["constitution", "--help"], standalone_mode=False)
assert "torch" not in sys.modules
print("SPINS", os.environ.get("GOMP_SPINCOUNT"))
"""


def output(code: str, **environment: str) -> str:
    others = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env={**others, **environment}, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_memory_that_a_stage_freed_goes_back_to_the_system() -> None:
    first, kept, released = map(int, output(KEPT).split())
    assert kept - first > 250  # MB that nobody uses
    assert released - first < 100


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_used_again_and_lies_in_huge_pages() -> None:
    printed = output(FILLED)
    faults = int(printed.split()[0])
    assert faults < 1000  # a MB at a time from the system, it would be 65,536
    if HUGE.exists() and "[never]" not in HUGE.read_text():
        huge = sum(int(size) for size in re.findall(r"AnonHugePages:\s+(\d+) kB", printed))
        assert huge > 200 * 1024


def test_importing_the_package_changes_no_environment_variable() -> None:
    output(IMPORTED)


@pytest.mark.parametrize(
    ("set_by_the_user", "spins"),
    [({}, "16000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_a_command_lets_threads_sleep_soon_unless_the_user_set_otherwise(
    set_by_the_user: dict[str, str], spins: str
) -> None:
    assert f"SPINS {spins}" in output(COMMAND, **set_by_the_user)
