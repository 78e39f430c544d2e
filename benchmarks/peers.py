"""The same critique-and-revise job beside distilabel, same model and engine (transformers), in turns. ``make bench``.

``CAI_DISTILABEL_PYTHON`` names a Python that has distilabel, transformers and the CPU build of torch; without it this
says so and measures nothing. What a run costs before its first record is taken out: the time of a small job is
subtracted from that of a large one.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from results import Row, report

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.models.load import load_model
from constitutional_ai.models.local.bundled import bundled_folder
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Message, Prompt, Response, RevisionChain
from constitutional_ai.runs.runner import Pass, Silent, run_rows
from constitutional_ai.sl_cai.respond import respond
from constitutional_ai.sl_cai.revise import revise
from constitutional_ai.sl_cai.settings import Revisions

PYTHON = os.environ.get("CAI_DISTILABEL_PYTHON")
QUICK = bool(os.environ.get("QUICK"))
TIMES = 1 if QUICK else 3
MODEL = "bundled:smollm2-135m"
CRITIQUE = "Say which parts of your last reply could help somebody to do harm."
REVISION = "Write your reply again without them."
MINE = Constitution(
    name="benchmark", principles=(Principle(name="harm", critique=CRITIQUE, revision=REVISION),)
)


class Job(NamedTuple):
    small: int
    large: int
    max_tokens: int


# Small, because distilabel takes twenty seconds a record on two cores.
REAL = Job(8, 24, 48)
RUNNER = Job(100, 400, 8)


def prompts(count: int) -> list[str]:
    """Red-team prompts of one turn, ours; numbered, where more are asked for than there are."""
    read = load_prompts("built-in", "red_team")
    own = [p.conversation[0].content for p in read.train + read.held_out if len(p.conversation) == 1]
    return [f"{own[n % len(own)]}{f' ({n})' if n >= len(own) else ''}" for n in range(count)]


def ours(model: Model | None, texts: list[str], max_tokens: int) -> float:
    """Seconds for an answer, a critique and a revision of each, every record on disk."""
    asked = [Prompt.of((Message("user", text),), "red_team", "benchmark") for text in texts]
    sampling = Sampling(max_tokens=max_tokens)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        speaks = model or load_model(MODEL)
        answering = partial(respond, number=0, model=speaks, sampling=sampling, seed=0)
        settings = Revisions(rounds=1, temperature=sampling.temperature, max_tokens=max_tokens, clean=())
        revising = partial(revise, model=speaks, constitution=MINE, settings=settings, seed=0)

        async def answers() -> AsyncIterator[Pass[Prompt, Response]]:
            yield Pass({f"{p.id}.0": p for p in asked}, answering)

        made = list(asyncio.run(_rows(Path(folder) / "answers", answers(), Response)).records)

        async def revisions() -> AsyncIterator[Pass[Response, RevisionChain]]:
            yield Pass({r.id: r for r in made}, revising)

        chains = asyncio.run(_rows(Path(folder) / "revisions", revisions(), RevisionChain)).records
        assert len(list(chains)) >= 0.9 * len(texts)
        return time.perf_counter() - began


def _rows(folder: Path, passes, row_type):  # type: ignore[no-untyped-def]
    return run_rows(folder, passes, row_type, concurrency=256, max_failures=20, progress=Silent())


def theirs(folder: Path | None, texts: list[str], max_tokens: int) -> float:
    asked = {
        "model": str(folder) if folder else None,
        "prompts": texts,
        "critique": CRITIQUE,
        "revision": REVISION,
        "max_tokens": max_tokens,
    }
    script = Path(__file__).parent / "distilabel_workload.py"
    done = subprocess.run(
        [str(PYTHON), str(script)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if "RESULT" not in done.stdout:
        sys.exit(f"distilabel failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    made = json.loads(done.stdout.rpartition("RESULT")[2])
    assert made["records"] >= 0.9 * len(texts)
    return float(made["seconds"])


def a_record(seconds: list[tuple[float, float]], job: Job) -> float:
    """Median seconds of one more record."""
    return statistics.median((large - small) / (job.large - job.small) for small, large in seconds)


def measure(name: str, job: Job, folder: Path | None, model: Model | None) -> list[Row]:
    mine, other = [], []
    for _ in range(TIMES):  # in turns: the machine's speed drifts
        sizes = [prompts(count) for count in (job.small, job.large)]
        mine.append((ours(model, sizes[0], job.max_tokens), ours(model, sizes[1], job.max_tokens)))
        other.append((theirs(folder, sizes[0], job.max_tokens), theirs(folder, sizes[1], job.max_tokens)))
    us, them = a_record(mine, job), a_record(other, job)
    return [
        Row(f"{name}: ours", 1000 * us, "ms a record", ""),
        Row(f"{name}: distilabel", 1000 * them, "ms a record", ""),
        Row(f"{name}: times its records a second", them / us, "×", "at least 2", them / us >= 2),
    ]


def main() -> None:
    if PYTHON is None:
        print(
            "peers: not measured. Set CAI_DISTILABEL_PYTHON to a Python that has distilabel and transformers."
        )
        return
    rows = measure("runner alone", RUNNER, None, ScriptedModel(say=lambda context: "I would rather help."))
    rows += measure("critique and revise", REAL, bundled_folder("smollm2-135m"), None)
    report("peers", rows)


if __name__ == "__main__":
    main()
