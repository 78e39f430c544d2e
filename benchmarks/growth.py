"""How cost grows with the number of records, from a hundred to a million: time, memory, and a resume. ``make bench``.

A size is a stage of the scripted model's answers, made by ``Run.make_rows`` in a process of its own and out of order,
as answers of a real model come. Time per record is the processor's, beyond that of a stage of one record, which
costs the same at every size.
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

from results import Row, report

from constitutional_ai.models.model import Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Message, Prompt, Response
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.runner import Pass, Silent
from constitutional_ai.sl_cai.respond import respond

SIZES = (100, 1_000, 10_000) if os.environ.get("QUICK") else (100, 1_000, 10_000, 1_000_000)
LEAST_RECORDS = 10_000
"""Small sizes are made anew until they come to as many, and their median counts."""
STAGE = "01-responses"


def prompt(number: int) -> Prompt:
    text = f"Question {number}: " + "how would you answer somebody who asks you this? " * 3
    return Prompt.of((Message("user", text),), "helpful", "benchmark")


class Seconds(NamedTuple):
    whole: float
    cpu: float
    """Of this process: other work on the machine does not count."""


def made(folder: Path, prompts: dict[str, Prompt]) -> Seconds:
    """To make a stage, or to go on with it."""
    model = ScriptedModel(say=lambda context: context[-120:])
    order = random.Random(0)

    async def step(one: Prompt) -> Response:
        for _ in range(order.randrange(3)):
            await asyncio.sleep(0)
        return await respond(one, number=0, model=model, sampling=Sampling(), seed=0)

    async def passes() -> AsyncIterator[Pass[Prompt, Response]]:
        yield Pass(prompts, step)

    with open_run(folder, {}, Silent()) as run:
        began, began_cpu = time.perf_counter(), time.process_time()
        rows = run.make_rows(STAGE, Response, passes, config={}, inputs={}, concurrency=256, max_failures=0)
        seconds = Seconds(time.perf_counter() - began, time.process_time() - began_cpu)
    assert len(rows) == len(prompts)
    return seconds


def measure(records: int) -> dict[str, float]:
    """Of one size, in this process."""
    prompts = {f"{p.id}.0": p for p in map(prompt, range(records))}
    with tempfile.TemporaryDirectory() as scratch:
        one = dict([next(iter(prompts.items()))])
        times = max(1, LEAST_RECORDS // records)
        fixed = statistics.median(made(Path(scratch) / f"one-{n}", one).cpu for n in range(9))
        whole = statistics.median(made(Path(scratch) / f"run-{n}", prompts).cpu for n in range(times))
        folder = Path(scratch) / "run-0"
        (folder / STAGE / "stage.json").unlink()
        resumed = made(folder, prompts)
        size = (folder / STAGE / "records.jsonl").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {
        "each": (whole - fixed) / (records - 1),
        "fixed": fixed,
        "resumed": resumed.whole,
        "resumed_cpu": resumed.cpu,
        "peak": peak,
        "size": size,
    }


def main() -> None:
    found = {}
    for records in SIZES:
        out = subprocess.run(
            [sys.executable, __file__, str(records)], check=True, capture_output=True, text=True
        )
        found[records] = json.loads(out.stdout)
        print(f"{records:,}: {found[records]}", flush=True)
    each = {records: 1e6 * one["each"] for records, one in found.items()}
    middle = statistics.median(each.values())
    rows = [Row("a stage of one record", 1e3 * statistics.median(f["fixed"] for f in found.values()), "ms", "")]
    rows += [
        Row(f"each of {n:,} records", us, "µs", f"within 20 % of {middle:.1f}", abs(us / middle - 1) <= 0.2)
        for n, us in each.items()
    ]
    most = max(found)
    peak, resumed = found[most]["peak"], found[most]["resumed"]
    rows.append(
        Row(f"memory at its peak, {most:,} records and their prompts", peak, "MiB", "under 954", peak < 954)
    )
    rows.append(Row(f"resume of {most:,} records", resumed, "s", "under 20", resumed < 20))
    rows.append(Row("of which the processor's", found[most]["resumed_cpu"], "s", ""))
    report("growth", rows)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
