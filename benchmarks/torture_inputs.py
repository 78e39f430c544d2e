"""Feed the commands mutated files and values, and count what is worse than a short sentence.

``python benchmarks/torture_inputs.py [CASES]`` runs 10,000 cases, each a command in process, with 5 s and 500 MB, and
goes on where it was stopped (``pieces.py``): constitutions, recipes, overrides, files of prompts, pairs, ratings and
few-shots, and the files of a run and of an evaluation. A case is made from its number alone: ``torture_inputs.py 1
4711`` repeats case 4,711, and shows it.
A case misses if it ends with a traceback, is slow or large, writes a long message, or goes on with changed records.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from click.testing import CliRunner
from mutations import VALUES, changed, put
from pieces import Pieces, cpu_seconds, most_megabytes
from results import Row, report, under

from constitutional_ai.cli import main
from constitutional_ai.constitutions.constitution import BUILT_IN, load_constitution
from constitutional_ai.data.worked_examples import FEW_SHOTS
from constitutional_ai.errors import CaiError
from constitutional_ai.recipes.recipe import Recipe, flat
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.runs import layout

CASES, CHUNK = 10_000, 50
SECONDS, MEGABYTES, CHARACTERS = 5, 500, 1500
ECHO = ["models.helpful=scripted:echo", "models.feedback=scripted:echo", "feedback.method=votes"]
FEW = [f"prompts.{kind}.limit=2" for kind in ("red_team", "helpful", "borderline")]
RUN = ["run", "demo", *ECHO, *FEW, "--until"]
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
FILES = {
    "constitution.yaml": (BUILT_IN / "default.yaml").read_bytes(),
    "recipe.yaml": Recipe().to_yaml().encode(),
    "prompts.jsonl": b'{"prompt": "How do I bake bread?"}\n{"messages": [{"role": "user", "content": "Hi"}]}\n'
    * 3,
    "prompts.csv": b'prompt,tags\n"How do I bake, say, bread?",food\nHi,\n',
    "pairs.jsonl": (json.dumps({"prompt": "Hi", "chosen": "Hello.", "rejected": "Go."}) + "\n").encode() * 3,
    "ratings.jsonl": (json.dumps({"messages": TURNS, "rating": 1}) + "\n").encode() * 3,
}
COMMANDS: dict[str, list[list[str]]] = {
    "constitution.yaml": [
        ["check", "constitution.yaml"],
        ["constitution", "lint", "constitution.yaml"],
        ["constitution", "diff", "default", "constitution.yaml"],
        ["constitution", "import", "constitution.yaml", "--out", "new.yaml"],
        [*RUN, layout.RESPONSES, "out=new", "constitution=constitution.yaml"],
    ],
    "recipe.yaml": [["estimate", "recipe.yaml"]],
    "prompts.jsonl": [
        [*RUN, layout.RESPONSES, "out=new", "prompts.red_team.file=prompts.jsonl"],
        ["evaluate", "a=scripted:echo", "--part", "answers", "--out", "new", "--prompts", "prompts.jsonl"],
    ],
    "prompts.csv": [[*RUN, layout.RESPONSES, "out=new", "prompts.helpful.file=prompts.csv"]],
    "pairs.jsonl": [
        ["judge", "scripted:echo", "--set", "method=votes", "--data", "pairs.jsonl", "--out", "new"]
    ],
    # Ratings are read first; that the folder holds other files then ends the command before a training.
    "ratings.jsonl": [["harmfulness", "ratings.jsonl", "--base", "hf:base", "--out", "base"]],
}
READING = [
    ["report", "run"],
    ["show", "run", "0"],
    ["compare", "run", "run"],
    ["export", "run", "--to", "parquet", "--out", "new"],
    ["estimate", "demo", *ECHO, *FEW, "--like", "run"],
    [*RUN, layout.REVISIONS, "out=run"],
    ["evaluate", "a=scripted:echo", "--part", "answers", "--limit", "1", "--out", "evaluation"],
    ["export", "evaluation", "--to", "parquet", "--out", "new"],
    ["figure", "2", "evaluation", "--out", "new"],
]


class Outcome(NamedTuple):
    """What a case came to."""

    number: int
    miss: str
    """The kind of the miss; empty if the case holds."""
    words: str


class Worked(NamedTuple):
    """A chunk of cases, and what it took."""

    outcomes: list[Outcome]
    cpu_seconds: float
    megabytes: float


def prepare(folder: Path) -> None:
    """Make the files that are mutated, in the current folder."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    shutil.copytree(FEW_SHOTS, folder / "shots")
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    for words in ([*RUN, layout.REVISIONS, "out=run"], READING[6]):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output


def case(number: int) -> tuple[list[str], Callable[[], str]]:
    """Mutate something in the current folder. Return the command, and what else must hold where it ends well."""
    rng = random.Random(number)
    subject = rng.choice((*FILES, "recipe.yaml", "value", "value", "value", "shots", *["run"] * 4))
    if subject == "value":
        return ["estimate", "demo", _override(rng)], lambda: ""
    if subject == "shots":
        path = rng.choice(sorted(Path("shots").iterdir()))
        words = [
            "judge",
            "scripted:echo",
            "--data",
            "pairs.jsonl",
            "--few-shots",
            "shots",
            "--set",
            "method=votes",
        ]
        _mutate(path, rng)
        return [*words, "--set", "format=plain"], lambda: ""
    if subject == "run":
        words = rng.choice(READING)
        folder = Path("evaluation" if "evaluation" in words else "run")
        path = rng.choice(sorted(p for p in folder.rglob("*") if p.suffix in {".json", ".jsonl", ".yaml"}))
        before = path.read_bytes()
        _mutate(path, rng)
        return words, lambda: _believed(path, before, words)
    _mutate(Path(subject), rng)
    return rng.choice(COMMANDS[subject]), lambda: _misread(subject)


def _mutate(path: Path, rng: random.Random) -> None:
    content = changed(path.read_bytes(), path.suffix.strip("."), rng)
    path.unlink()
    put(path, content, rng)


def _override(rng: random.Random) -> str:
    key = rng.choice([*flat(Recipe().model_dump()), "models", "rl_cai", "x", "", "a.b.c", "\ud800"])
    value = rng.choice(VALUES)
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True)
    return f"{key}{rng.choice(('=', '=', '=', '=', '', '.='))}{text.strip()}".replace("<huge>", "9" * 5000)


def _misread(name: str) -> str:
    """Return how a recipe or a constitution that was accepted differs from what plain YAML says."""
    if not name.endswith(".yaml"):
        return ""
    try:
        written = yaml.safe_load(Path(name).read_text("utf-8-sig"))
        read = (load_recipe(name) if name == "recipe.yaml" else load_constitution(name)).model_dump(mode="json")
    except (ValueError, CaiError):  # such as UTF-16
        return ""
    return "a silently other run" if _differs(written, read) else ""


def _differs(written: Any, read: Any) -> bool:
    """Whether something that is written is not what was read. Texts lose the white space around them."""
    if isinstance(written, dict) and isinstance(read, dict):
        return any(_differs(value, read.get(key)) for key, value in written.items())
    if isinstance(written, list) and isinstance(read, list):
        return len(written) != len(read) or any(map(_differs, written, read))
    if written is None:  # an empty section, or an empty file
        return False
    return written != read and str(written).strip() != str(read)


def _believed(path: Path, before: bytes, words: list[str]) -> str:
    """Return whether a command of a complete stage went on with other records."""
    now = path.read_bytes() if path.is_file() else b""
    is_record = path.name == layout.RECORDS and words[0] in ("run", "compare", "export", "show")
    return "changed records are believed" if is_record and now != before else ""


def attempt(number: int, start: Path) -> Outcome:
    """Run a case in a copy of the prepared folder."""
    with tempfile.TemporaryDirectory() as scratch:
        place = shutil.copytree(start, Path(scratch) / "case")
        os.chdir(place)
        words, holds = case(number)
        began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.setitimer(signal.ITIMER_PROF, 4 * SECONDS)  # of computing: the machine may do other work
        try:
            result = CliRunner().invoke(main, words)
            miss = _miss(result, holds)
        except _TooSlow:
            miss = "does not end"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
        os.chdir("/")
    if not miss and seconds > SECONDS:
        miss = f"slow: {words[0]}"
    if not miss and grown > MEGABYTES:
        miss = f"large: {words[0]}"
    return Outcome(number, miss, " ".join(words)[:200])


class _TooSlow(BaseException):
    pass


def _too_slow(*_: object) -> None:
    raise _TooSlow


def _miss(result: Any, holds: Callable[[], str]) -> str:
    error = result.exception
    if isinstance(error, _TooSlow):
        return "does not end"
    if error is not None and not isinstance(error, SystemExit):
        places = [f for f in traceback.extract_tb(error.__traceback__) if "constitutional_ai" in f.filename]
        last = places[-1]
        return f"{type(error).__name__} in {Path(last.filename).name}:{last.name}"
    if result.exit_code == 0:
        return holds()
    message = result.stderr
    if len(message) > CHARACTERS:
        return "a long message"
    return "" if re.search("cai: |Error: ", message) else "an exit without a message"


def work(start: Path, numbers: range) -> Worked:
    """Run a chunk of cases. What loads the libraries is not measured."""
    signal.signal(signal.SIGPROF, _too_slow)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(shutil.copytree(start, Path(scratch) / "warm"))
        for words in READING:
            CliRunner().invoke(main, words)
        os.chdir("/")
    before = cpu_seconds()
    outcomes = [attempt(number, start) for number in numbers]
    return Worked(outcomes, cpu_seconds() - before, most_megabytes())


def chunks(first: int, end: int) -> Iterator[range]:
    for start in range(first, end, CHUNK):
        yield range(start, min(start + CHUNK, end))


@contextmanager
def working(first: int, end: int) -> Iterator[Iterator[Worked]]:
    """Run cases on two processes, a chunk after the other; those that were not waited for are given up."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, context) as pool:
        os.chdir(folder)
        prepare(Path(folder))
        yield pool.map(partial(work, Path(folder)), chunks(first, end))
        pool.shutdown(cancel_futures=True)
        os.chdir("/")


def repeat(cases: int, first: int) -> None:
    """Run some cases, and show their misses."""
    with working(first, first + cases) as results:
        show([one for result in results for one in result.outcomes if one.miss])


def torture(cases: int) -> None:
    """Run pieces until there were enough cases or time is up, and report."""
    pieces = Pieces("torture_inputs", chunk=CHUNK)
    first = int(pieces.total("cases"))
    with working(first, max(first, -(-cases // CHUNK) * CHUNK)) as results:
        for _, result in zip(pieces.next_numbers(), results, strict=False):
            misses = [one._asdict() for one in result.outcomes if one.miss]
            figures = {"cpu_seconds": result.cpu_seconds, "megabytes": result.megabytes}
            pieces.add(cases=len(result.outcomes), misses=misses, **figures)
            print(f"{pieces.total('cases'):.0f} cases, {pieces.total('misses'):.0f} misses", file=sys.stderr)
    show([Outcome(**miss) for piece in pieces.figures for miss in piece["misses"]])
    complete = pieces.print_line("cases", cases)
    if complete and cases == CASES:
        misses_row = under("misses", pieces.total("misses"), "", 1)
        report("torture_inputs", [Row("cases", pieces.total("cases"), ""), misses_row])
    elif pieces.total("misses"):
        sys.exit(1)


def show(misses: list[Outcome]) -> None:
    """Print each kind of miss with an example."""
    for kind, count in Counter(one.miss for one in misses).most_common():
        example = next(one for one in misses if one.miss == kind)
        print(f"{count:5} × {kind}, such as case {example.number}: {example.words!a}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        repeat(int(sys.argv[1]), int(sys.argv[2]))
    else:
        torture(int(sys.argv[1]) if len(sys.argv) > 1 else CASES)
