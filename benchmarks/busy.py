"""Speed beside programs that keep the processor busy, of our engine and (where it is installed) OpenVINO.

Each workload runs quiet, beside two processes of one thread and beside one of two, all multiplying matrices without
end. Run it on a machine that does nothing else: another load would count as ours. ``QUICK=1`` runs everything once.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from results import Row, ratio, report
from sides import Measured, cold, generated, has_openvino, in_turns, on_openvino, ours
from workloads import chats, critiques

from constitutional_ai.models.model import Context

SLOWDOWN_BAR, OPENVINO_BAR = 3, 1.2
LOADS = {"quiet": (0, 0), "beside two processes": (2, 1), "beside one of two threads": (1, 2)}
"""Processes, and threads of each."""
MULTIPLY = """
import os, sys, torch
parent, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
matrix = torch.rand(1024, 1024)
matrix @ matrix
print("busy", flush=True)
while os.getppid() == parent:  # it ends even where the benchmark was killed
    matrix @ matrix
"""


class Work(NamedTuple):
    """Requests that are sent at once."""

    name: str
    unit: str
    contexts: list[Context]
    new: int

    def run(self, model: Any) -> int:
        """Generate a completion for each context; return the number of requests, or of new tokens."""
        done = generated(self.contexts, model, self.new)
        return len(done) if self.unit == "requests" else sum(each.completion_tokens for each in done)


@contextmanager
def load(processes: int, threads: int) -> Iterator[None]:
    """Keep the processor busy within the block."""
    command = [sys.executable, "-c", MULTIPLY, str(os.getpid()), str(threads)]
    started: list[subprocess.Popen[str]] = []
    try:
        for _ in range(processes):
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for each in started:
            assert each.stdout
            each.stdout.readline()
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def rows_of(work: Work, openvino: bool) -> list[Row]:
    """Measure one workload under all loads."""
    rows, quiet = [], 0.0
    sides: list[Callable[[], Measured]] = [lambda: cold(partial(work.run, ours()))]
    if openvino:
        sides.append(partial(on_openvino, work.run))
    for name, (processes, threads) in LOADS.items():
        with load(processes, threads):
            own, *others = in_turns(*sides)
        rate = statistics.median(run.rate for run in own)
        quiet = quiet or rate
        rows.append(Row(f"{work.name}, {name}", rate, f"{work.unit}/s"))
        if processes:
            slowdown, bar = quiet / rate, f"at most {SLOWDOWN_BAR}"
            rows.append(Row(f"{work.name}, {name}: slower", slowdown, "times", bar, slowdown <= SLOWDOWN_BAR))
        for theirs in others:
            median = statistics.median(run.rate for run in theirs)
            rows.append(Row(f"{work.name}, {name}: OpenVINO", median, f"{work.unit}/s"))
            ratios = [a.rate / b.rate for a, b in zip(own, theirs, strict=True)]
            bar_here = OPENVINO_BAR if processes else None
            rows.append(ratio(f"{work.name}, {name}: times OpenVINO", ratios, bar_here))
    return rows


def main() -> None:
    openvino = has_openvino()
    works = [
        Work("one chat", "tokens", chats(1), 32),
        Work("64 chats of 16 tokens", "tokens", chats(64), 16),
        Work("16 critiques", "requests", critiques(16), 64),
    ]
    report("busy", [row for work in works for row in rows_of(work, openvino)])


if __name__ == "__main__":
    main()
