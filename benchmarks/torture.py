"""Kill a whole run and what follows it at random moments, and compare the end with that of an unbroken one.

``make torture``. A tiny random model makes every stage, trainings included, in float64; then the run is evaluated,
reported and exported, its answers are scored, and a constitution is imported. Every process is killed: before a random
change on the disk, in the middle of a row, or after a random time. ``KILLS`` (200) is their number, ``SEED`` (0) their
seed. With ``SCRIPTED=1`` models are scripted and trainings write what they depend on, so that a kill takes a second or
two; nothing is scored then. It exits with 1 when anything differs, a completed call is repeated, or a temporary file is
left. A piece is a whole run with its kills; see ``pieces.py`` for ``SECONDS`` and for going on.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CAI_ENGINE": "transformers"}

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pieces import Pieces, cpu_seconds
from results import Row, at_least, report, under

from constitutional_ai.cli import main
from constitutional_ai.models.cached import CallFile
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.runs import layout
from constitutional_ai.runs.durable import PART
from tests.pipeline.kills import finishes, random_kill
from tests.pipeline.stand_ins import untrained
from tests.pipeline.tiny_run import make, settings

KILLS, SEED = int(os.environ.get("KILLS", 200)), int(os.environ.get("SEED", 0))
SCRIPTED = os.environ.get("SCRIPTED", "") not in ("", "0")
LOADED = {
    "constitutional_ai.report.export": ["parquet"],
    "constitutional_ai.rl_cai.reinforcement": ["reinforce"],
    "constitutional_ai.training": ["answer_rows", "completion_loss", "launch", "on_engine", "soft_labels"],
}
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


def make_model_run(model: str, run: Path) -> None:
    """Make a run, trainings included."""
    import torch

    from constitutional_ai import machine

    machine.best_dtype = lambda: torch.float64
    make(recipe(model, run))


def make_scripted_run(run: Path) -> None:
    """Make a run of scripted models, whose trainings are stand-ins."""
    file = untrained(run.parent, pytest.MonkeyPatch())  # this process ends with the run
    make({**load_recipe(str(file)).model_dump(), "out": str(run)})


def work(make_run: Callable[[Path], None], folder: Path, calls: Path) -> None:
    """Make the run and all that follows; what is there already is left as it is."""
    put = CallFile.put

    def noted(file: CallFile, key: str, value: str) -> None:
        put(file, key, value)
        with calls.open("a") as stream:
            stream.write(f"{file._path.parent.name} {key}\n")

    CallFile.put = noted  # type: ignore[method-assign]
    run = folder / "run"
    make_run(run)
    answers = run / layout.EVALUATION / layout.RECORDS
    scores, imported, source = folder / SCORES, folder / "imported.yaml", folder / "source.txt"
    source.write_text("Which answer is kinder?\nWhich answer is more honest?\n")
    models = ["a=scripted:echo", "--out", folder / "evaluated"] if SCRIPTED else [run]
    command("evaluate", *models, "--part", "answers", "--limit", 2, "--max-tokens", 6)
    command("report", run)
    command("export", run, "--to", "parquet", "--out", folder / "tables")
    if not scores.exists() and not SCRIPTED:
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


def damage(folder: Path, calls: Path, whole: dict[str, str]) -> dict[str, list[str]]:
    """Return what is wrong with a run after its kills."""
    now = outputs(folder)
    repeated = [call for call, times in Counter(calls.read_text().splitlines()).items() if times > 1]
    return {
        "differ": [name for name in {**whole, **now} if whole.get(name) != now.get(name)],
        "repeated": repeated,
        "left": [str(path) for path in folder.rglob(f"*{PART}")],
    }


def torture(make_run: Callable[[Path], None], place: Path) -> None:
    """Kill until there were enough or time is up, and tell what came of it."""
    log, calls, folder = place / "log", place / "calls", place / "one" / "of"
    job: Callable[[], None] = partial(work, make_run, folder, calls)
    folder.mkdir(parents=True)
    pieces = Pieces("torture", seed=SEED, scripted=SCRIPTED)
    started = time.monotonic()
    assert finishes(job, folder, log), "the unbroken run was killed"
    seconds, whole = time.monotonic() - started, outputs(folder)
    numbers = pieces.next_numbers()
    while pieces.total("kills") < KILLS and (number := next(numbers, None)) is not None:
        shutil.rmtree(folder)
        folder.mkdir()
        calls.write_text("")
        random, kills, before = Random(f"{SEED} {number}"), 0, cpu_seconds()
        kill = partial(random_kill, random, changes=1000 // SESSIONS, lines=30, seconds=2 * seconds / SESSIONS)
        while not finishes(job, folder, log, kill()):
            kills += 1
        pieces.add(kills=kills, cpu_seconds=cpu_seconds() - before, **damage(folder, calls, whole))
        print(
            f"{pieces.total('kills'):.0f} kills, {len(pieces.figures)} whole runs", file=sys.stderr, flush=True
        )
    tell(pieces, seconds)


def tell(pieces: Pieces, seconds: float) -> None:
    """Print the figures; exit with 1 where a promise is broken."""
    complete = pieces.print_line("kills", KILLS)
    rows = [
        at_least("kills", pieces.total("kills"), "", KILLS if complete else 0),
        Row("whole runs", len(pieces.figures), ""),
        Row("an unbroken run takes", seconds, "s"),
        Row("processor time of a kill", pieces.total("cpu_seconds") / max(1, pieces.total("kills")), "s"),
        under("files that differ from those of the unbroken run", pieces.total("differ"), "", 1),
        under("completed calls that were repeated", pieces.total("repeated"), "", 1),
        under("temporary files left", pieces.total("left"), "", 1),
    ]
    if complete and not SCRIPTED:
        report("torture", rows)
    elif not all(row.holds for row in rows):
        sys.exit(1)


def main_program(place: Path) -> None:
    """Torture scripted runs, or those of a tiny random model."""
    if SCRIPTED:
        torture(make_scripted_run, place)
        return
    for package, modules in LOADED.items():
        for name in modules:
            importlib.import_module(f"{package}.{name}")
    base = place / "model"

    def make_base() -> None:
        from tests.families import make_family

        make_family("base", base)

    assert finishes(make_base, base, place / "log")
    torture(partial(make_model_run, f"hf:{base}"), place)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main_program(Path(temporary))
