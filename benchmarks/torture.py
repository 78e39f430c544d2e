"""Kill a whole run and what follows it at random moments, and compare the end with that of an unbroken one.

``make torture``. A tiny random model makes every stage, trainings included, in float64; then the run is evaluated,
reported and exported, its answers are scored, and a constitution is imported. Every process is killed: before a random
change on the disk, in the middle of a row, or after a random time. ``KILLS`` (200) is their number, ``SEED`` (0) their
seed. It exits with 1 when anything differs, a completed call is repeated, or a temporary file is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CAI_ENGINE": "transformers"}

import pyarrow.parquet as pq
import torch
from click.testing import CliRunner
from results import Row, at_least, report, under

from constitutional_ai import machine
from constitutional_ai.cli import main
from constitutional_ai.models.cached import CallFile
from constitutional_ai.report.export import parquet
from constitutional_ai.rl_cai.reinforcement import reinforce
from constitutional_ai.runs import layout
from constitutional_ai.runs.durable import PART
from constitutional_ai.training import answer_rows, completion_loss, launch, on_engine, soft_labels
from tests.families import make_family
from tests.pipeline.kills import finishes, random_kill
from tests.pipeline.tiny_run import make, settings

KILLS, SEED = int(os.environ.get("KILLS", 200)), int(os.environ.get("SEED", 0))
LOADED = (answer_rows, completion_loss, launch, on_engine, parquet, reinforce, soft_labels)
"""Modules that take seconds to import, once for all processes."""
SCORES = "scores.jsonl"
SESSIONS = 12
"""About this many kills fall on a whole run."""
COMPARED = {".jsonl", ".json", ".yaml", ".safetensors", ".parquet", ".csv"}
MAKING = {layout.MANIFEST, layout.RUN, layout.RECIPE, layout.STEPS, layout.MODELS, "trainer_state.json"}
"""Files that say when, where and how long something was made."""


def recipe(model: str, out: Path) -> dict[str, object]:
    """Return a recipe with a checkpoint at every step, a second preference model, and snapshots."""
    plain = settings(model, out, concurrency=4)
    for training in ("sl_cai", "preference_model", "rl_cai"):
        plain[training] |= {"checkpoint_steps": 1}
    plain["models"] |= {"preference_model": None}
    plain["preference_model"] |= {"second": True, "helpfulness": {"limit": 8}}
    plain["rl_cai"] |= {"prompts": 8, "snapshot_every": 4}
    return plain


def work(model: str, folder: Path, calls: Path) -> None:
    """Make the run and all that follows; what is there already is left as it is."""
    machine.best_dtype = lambda: torch.float64
    put = CallFile.put

    def noted(file: CallFile, key: str, value: str) -> None:
        put(file, key, value)
        with calls.open("a") as stream:
            stream.write(f"{file._path.parent.name} {key}\n")

    CallFile.put = noted  # type: ignore[method-assign]
    run = folder / "run"
    make(recipe(model, run))
    answers = run / layout.EVALUATION / layout.RECORDS
    scores, imported, source = folder / SCORES, folder / "imported.yaml", folder / "source.txt"
    source.write_text("Which answer is kinder?\nWhich answer is more honest?\n")
    command("evaluate", run, "--part", "answers", "--limit", 2, "--max-tokens", 6)
    command("report", run)
    command("export", run, "--to", "parquet", "--out", folder / "tables")
    if not scores.exists():
        command("score", run, answers, "--out", scores)
    if not imported.exists():
        command("constitution", "import", source, "--out", imported)


def command(*words: object) -> None:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, f"{words}: {result.output}"


def outputs(folder: Path) -> dict[str, str]:
    """Return a digest of each file that a command makes, but for those that tell of their making."""
    files = [path for path in folder.rglob("*") if path.suffix in COMPARED and path.name not in MAKING]
    return {str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest() for path in files}


def content(path: Path) -> bytes:
    """Return what is compared: all bytes, or 9 digits of numbers that a batch of scores rounds, even in float64."""
    if path.suffix == ".parquet":
        return rounded(json.dumps(pq.read_table(path).to_pylist()))
    scored = path.name == layout.METRICS or layout.EVALUATION in path.parts or path.name == SCORES
    return rounded(path.read_text()) if scored else path.read_bytes()


def rounded(text: str) -> bytes:
    return re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda number: f"{float(number[0]):.9g}", text).encode()


class Damage:
    """What was wrong with runs after their kills."""

    def __init__(self) -> None:
        self.differ, self.repeated, self.left = list[str](), 0, list[str]()

    def look(self, folder: Path, calls: Path, whole: dict[str, str]) -> None:
        now = outputs(folder)
        self.differ += [name for name in {**whole, **now} if whole.get(name) != now.get(name)]
        self.repeated += sum(n - 1 for n in Counter(calls.read_text().splitlines()).values())
        self.left += [str(path) for path in folder.rglob(f"*{PART}")]


def torture(model: str, place: Path) -> list[Row]:
    """Kill until there were enough, and return what was found."""
    log, calls, folder = place / "log", place / "calls", place / "one" / "of"
    job: Callable[[], None] = partial(work, model, folder, calls)
    folder.mkdir(parents=True)
    started = time.monotonic()
    assert finishes(job, folder, log), "the unbroken run was killed"
    seconds, whole = time.monotonic() - started, outputs(folder)
    random, damage, kills, runs = Random(SEED), Damage(), 0, 0
    while kills < KILLS:
        shutil.rmtree(folder)
        folder.mkdir()
        calls.write_text("")
        while not finishes(
            job,
            folder,
            log,
            random_kill(random, changes=1000 // SESSIONS, lines=30, seconds=2 * seconds / SESSIONS),
        ):
            kills += 1
        runs += 1
        print(f"{kills} kills, {runs} whole runs", flush=True)
        damage.look(folder, calls, whole)
    for name in sorted(set(damage.differ)):
        print("differs:", name)
    return [
        at_least("kills", kills, "", KILLS),
        Row("whole runs", runs, ""),
        Row("an unbroken run takes", seconds, "s"),
        under("files that differ from those of the unbroken run", len(damage.differ), "", 1),
        under("completed calls that were repeated", damage.repeated, "", 1),
        under("temporary files left", len(damage.left), "", 1),
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary) / "model"
        assert finishes(partial(make_family, "base", base), base, Path(temporary) / "log")
        rows = torture(f"hf:{base}", Path(temporary))
    report("torture", rows)
