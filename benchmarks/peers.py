"""Critique and revision beside distilabel with the same model in transformers, in turns. ``make bench``.

``CAI_DISTILABEL_PYTHON`` names a Python that has distilabel, transformers and the CPU build of torch. Without it
nothing is measured. Fixed costs are taken out: the time of a small job is subtracted from that of a large one.
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

from results import Row, at_least, report

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
CONSTITUTION = Constitution(
    name="benchmark", principles=(Principle(name="harm", critique=CRITIQUE, revision=REVISION),)
)


class Job(NamedTuple):
    """The numbers of prompts of a small and a large run."""

    small: int
    large: int
    max_tokens: int


# Small, because distilabel takes 20 s for each record on two cores.
REAL = Job(8, 24, 48)
RUNNER = Job(100, 400, 8)


def prompts(count: int) -> list[str]:
    """Return the project's red-team prompts of one turn; they repeat with a number where ``count`` is larger."""
    read = load_prompts("built-in", "red_team")
    own = [p.conversation[0].content for p in read.train + read.held_out if len(p.conversation) == 1]
    return [f"{own[n % len(own)]}{f' ({n})' if n >= len(own) else ''}" for n in range(count)]


def ours(model: Model | None, texts: list[str], max_tokens: int) -> float:
    """Return the seconds for an answer, a critique and a revision of each text, every record on disk.

    The embedded model is loaded where ``model`` is None; that time counts.
    """
    inputs = [Prompt.of((Message("user", text),), "red_team", "benchmark") for text in texts]
    sampling = Sampling(max_tokens=max_tokens)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        policy = model or load_model(MODEL)
        answering = partial(respond, number=0, model=policy, sampling=sampling, seed=0)
        settings = Revisions(rounds=1, temperature=sampling.temperature, max_tokens=max_tokens, clean=())
        revising = partial(revise, model=policy, constitution=CONSTITUTION, settings=settings, seed=0)

        async def answers() -> AsyncIterator[Pass[Prompt, Response]]:
            yield Pass({f"{p.id}.0": p for p in inputs}, answering)

        responses = list(asyncio.run(_rows(Path(folder) / "answers", answers(), Response)).records)

        async def revisions() -> AsyncIterator[Pass[Response, RevisionChain]]:
            yield Pass({r.id: r for r in responses}, revising)

        chains = asyncio.run(_rows(Path(folder) / "revisions", revisions(), RevisionChain)).records
        assert len(list(chains)) >= 0.9 * len(texts)
        return time.perf_counter() - start


def _rows(folder: Path, passes, row_type):  # type: ignore[no-untyped-def]
    return run_rows(folder, passes, row_type, concurrency=256, max_failures=20, progress=Silent())


def theirs(folder: Path | None, texts: list[str], max_tokens: int) -> float:
    """Return the seconds of the same job in distilabel, with constant answers where ``folder`` is None."""
    request = {
        "model": str(folder) if folder else None,
        "prompts": texts,
        "critique": CRITIQUE,
        "revision": REVISION,
        "max_tokens": max_tokens,
    }
    script = Path(__file__).parent / "distilabel_workload.py"
    done = subprocess.run(
        [str(PYTHON), str(script)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if "RESULT" not in done.stdout:
        sys.exit(f"distilabel failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    result = json.loads(done.stdout.rpartition("RESULT")[2])
    assert result["records"] >= 0.9 * len(texts)
    return float(result["seconds"])


def per_record(seconds: list[tuple[float, float]], job: Job) -> float:
    """Return the median seconds for each further record."""
    return statistics.median((large - small) / (job.large - job.small) for small, large in seconds)


def measure(name: str, job: Job, *, scripted: bool) -> list[Row]:
    """Measure both sides, with the embedded model or with ``scripted`` answers."""
    model = ScriptedModel(say=lambda context: "I would rather help.") if scripted else None
    folder = None if scripted else bundled_folder("smollm2-135m")
    small, large = prompts(job.small), prompts(job.large)
    mine, other = [], []
    for _ in range(TIMES):  # in turns, because the machine's speed drifts
        mine.append((ours(model, small, job.max_tokens), ours(model, large, job.max_tokens)))
        other.append((theirs(folder, small, job.max_tokens), theirs(folder, large, job.max_tokens)))
    own_time, other_time = per_record(mine, job), per_record(other, job)
    return [
        Row(f"{name}: ours", 1000 * own_time, "ms/record"),
        Row(f"{name}: distilabel", 1000 * other_time, "ms/record"),
        at_least(f"{name}: speed, times distilabel", other_time / own_time, "times", 2),
    ]


def main() -> None:
    if PYTHON is None:
        print("distilabel is not measured. Set CAI_DISTILABEL_PYTHON to a Python that has it and transformers.")
        return
    rows = measure("runner alone", RUNNER, scripted=True)
    report("peers", rows + measure("critique and revise", REAL, scripted=False))


if __name__ == "__main__":
    main()
