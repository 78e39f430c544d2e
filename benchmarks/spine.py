"""Speed of the spine: the command line, the runner alone, and the resume of a finished run. ``make bench``."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from results import Row, report

from constitutional_ai.models.model import Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Message, Prompt, Response
from constitutional_ai.runs.runner import Pass, Silent, run_rows
from constitutional_ai.sl_cai.respond import respond

CAI = str(Path(sys.executable).parent / "cai")
TIMES = 3 if os.environ.get("QUICK") else 5


def median_seconds(run: Callable[[], object]) -> float:
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def runner_rate(records: int = 20_000) -> float:
    """Records a second through the runner with the scripted model, every record on disk."""
    prompts = [Prompt.of((Message("user", f"Question {n}?"),), "helpful", "benchmark") for n in range(records)]
    step = partial(respond, number=0, model=ScriptedModel(), sampling=Sampling(), seed=0)

    async def passes() -> AsyncIterator[Pass[Prompt, Response]]:
        yield Pass({f"{p.id}.0": p for p in prompts}, step)

    def once() -> None:
        with tempfile.TemporaryDirectory() as folder:
            made = asyncio.run(
                run_rows(Path(folder), passes(), Response, concurrency=256, max_failures=0, progress=Silent())
            )
            assert len(made.records) == records

    return records / median_seconds(once)


def command(*words: str) -> None:
    subprocess.run([CAI, *words], check=True, capture_output=True)


def main() -> None:
    rows = []
    seconds = median_seconds(partial(command, "--help"))
    rows.append(Row("cai --help", seconds, "s", "under 0.4", seconds < 0.4))
    rate = runner_rate()
    rows.append(Row("runner, scripted model", rate, "records/s", "at least 3,000", rate >= 3000))
    if Path("runs/demo/report.html").exists():
        seconds = median_seconds(partial(command, "run", "demo"))
        rows.append(Row("resume of the finished demo", seconds, "s", "under 3", seconds < 3))
    else:
        print("no finished demo: run 'make demo' first to measure a resume")
    report("spine", rows)


if __name__ == "__main__":
    main()
