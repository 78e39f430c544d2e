"""How the time and memory of a stage grow with its records, from a hundred to a million. ``make bench``.

Each size is a stage of the scripted model's answers, written by ``Run.make_rows`` in a process of its own. Answers come
out of order, as those of a real model do. The time per record is CPU time, less that of a stage of one record, which is
the same at every size. The largest stage is also resumed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from results import Row, report, under

from constitutional_ai.models.model import Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Message, Prompt, Response
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.runner import Pass, Silent
from constitutional_ai.sl_cai.respond import respond

SIZES = (100, 1_000, 10_000) if os.environ.get("QUICK") else (100, 1_000, 10_000, 1_000_000)
LEAST_RECORDS = 10_000
"""A smaller size is repeated until it has written this many records; its median counts."""
STAGE = layout.RESPONSES


def prompt(number: int) -> Prompt:
    text = f"Question {number}: " + "how would you answer somebody who asks you this? " * 3
    return Prompt.of((Message("user", text),), "helpful", "benchmark")


class Seconds(NamedTuple):
    elapsed: float
    cpu: float
    """CPU time of this process, which other work on the machine does not change."""


def run_stage(folder: Path, prompts: dict[str, Prompt]) -> Seconds:
    """Write a stage with an answer to each prompt, or resume it."""
    model = ScriptedModel(say=lambda context: context[-120:])
    order = random.Random(0)

    async def step(one: Prompt) -> Response:
        for _ in range(order.randrange(3)):
            await asyncio.sleep(0)
        return await respond(one, number=0, model=model, sampling=Sampling(), seed=0)

    async def passes() -> AsyncIterator[Pass[Prompt, Response]]:
        yield Pass(prompts, step)

    with open_run(folder, {}, Silent()) as run:
        start, start_cpu = time.perf_counter(), time.process_time()
        rows = run.make_rows(STAGE, Response, passes, config={}, inputs={})
        seconds = Seconds(time.perf_counter() - start, time.process_time() - start_cpu)
    assert len(rows) == len(prompts)
    return seconds


def measure(records: int) -> dict[str, float]:
    """Measure one size, in this process."""
    prompts = {f"{p.id}.0": p for p in map(prompt, range(records))}
    with tempfile.TemporaryDirectory() as scratch:
        one = dict([next(iter(prompts.items()))])
        times = max(1, LEAST_RECORDS // records)
        fixed = statistics.median(run_stage(Path(scratch) / f"one-{n}", one).cpu for n in range(9))
        whole = statistics.median(run_stage(Path(scratch) / f"run-{n}", prompts).cpu for n in range(times))
        folder = Path(scratch) / "run-0"
        (folder / STAGE / layout.MANIFEST).unlink()
        resumed = run_stage(folder, prompts)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {
        "each": (whole - fixed) / (records - 1),
        "fixed": fixed,
        "resumed": resumed.elapsed,
        "resumed_cpu": resumed.cpu,
        "peak": peak,
    }


def main() -> None:
    sizes = {}
    for records in SIZES:
        out = subprocess.run(
            [sys.executable, __file__, str(records)], check=True, capture_output=True, text=True
        )
        sizes[records] = json.loads(out.stdout)
        print(f"{records:,}: {sizes[records]}", flush=True)
    each = {records: 1e6 * one["each"] for records, one in sizes.items()}
    middle, largest = statistics.median(each.values()), max(sizes)
    last = sizes[largest]
    report(
        "growth",
        [
            Row("a stage of one record", 1e3 * statistics.median(one["fixed"] for one in sizes.values()), "ms"),
            *(
                Row(
                    f"each of {n:,} records",
                    us,
                    "µs",
                    f"within 20 % of {middle:.1f}",
                    abs(us / middle - 1) <= 0.2,
                )
                for n, us in each.items()
            ),
            under(f"peak memory, {largest:,} records and their prompts", last["peak"], "MiB", 954),
            under(f"resume of {largest:,} records", last["resumed"], "s", 20),
            Row("CPU time of that resume", last["resumed_cpu"], "s"),
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
