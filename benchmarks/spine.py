"""Speed of the command line, of the runner without a model, and of resuming a finished run. ``make bench``."""

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

from results import at_least, report, under

from constitutional_ai.models.model import Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Message, Prompt, Response
from constitutional_ai.runs.runner import Pass, Silent, run_rows
from constitutional_ai.sl_cai.respond import respond

CAI = str(Path(sys.executable).parent / "cai")
TIMES = 3 if os.environ.get("QUICK") else 5


def median_seconds(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(TIMES):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def runner_rate(records: int = 20_000) -> float:
    """Return the records per second that the runner writes to disk, with the scripted model."""
    prompts = [Prompt.of((Message("user", f"Question {n}?"),), "helpful", "benchmark") for n in range(records)]
    step = partial(respond, number=0, model=ScriptedModel(), sampling=Sampling(), seed=0)

    async def passes() -> AsyncIterator[Pass[Prompt, Response]]:
        yield Pass({f"{p.id}.0": p for p in prompts}, step)

    def once() -> None:
        with tempfile.TemporaryDirectory() as folder:
            stage = asyncio.run(
                run_rows(Path(folder), passes(), Response, concurrency=256, max_failures=0, progress=Silent())
            )
            assert len(stage.records) == records

    return records / median_seconds(once)


def command(*words: str) -> None:
    subprocess.run([CAI, *words], check=True, capture_output=True)


def main() -> None:
    rows = [
        under("cai --help", median_seconds(partial(command, "--help")), "s", 0.4),
        at_least("runner, scripted model", runner_rate(), "records/s", 3000),
    ]
    if Path("runs/demo/report.html").exists():
        seconds = median_seconds(partial(command, "run", "demo"))
        rows.append(under("resume of the finished demo", seconds, "s", 3))
    else:
        print("Resuming is not measured: there is no finished demo. Run 'make demo' first.")
    report("spine", rows)


if __name__ == "__main__":
    main()
