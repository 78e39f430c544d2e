"""Records on many workers: identical, through kills, at what rate, and merged by the million. ``make scale``.

A loopback server answers from the seed of each request, after a fixed time, and counts what it answers. Ray runs on
this machine, or on the cluster that ``RAY_ADDRESS`` names. Workers share the machine's processors: the rates say how
much a worker computes beside waiting, and nothing about networks. What ten million records take is computed from what
fewer take. ``QUICK`` makes all sizes small.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from results import Row, at_least, report, under

from constitutional_ai.data.prompts import load_prompts_of_kind
from constitutional_ai.records import Completion, Message, Prompt, Response
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.manifest import StageManifest, versions
from constitutional_ai.runs.merge_shards import whole_shards
from constitutional_ai.runs.rows import RowIndex, adapter, digest_file
from constitutional_ai.runs.shards import Shard, ShardItem
from constitutional_ai.runs.written_files import digests_in
from constitutional_ai.seeding import seed_of
from tests.faulty_server import FaultyServer

QUICK = bool(os.environ.get("QUICK"))
RECORDS, PROMPTS, PROMPTS_OF_WORKER = (100_000, 24, 20) if QUICK else (1_000_000, 200, 40)
COMPARED = (2,) if QUICK else (1, 2, 4)
"""Numbers of workers whose records are compared with those of one process."""
WORKERS = (1, 2) if QUICK else (1, 2, 4, 8, 16, 32, 64)
"""Numbers of workers whose rates are measured, each with one call in flight."""
SHARDS, IN_FLIGHT, LATENCY = 16, 8, 0.2
TEN_MILLION = 10_000_000
STAGE = layout.REVISIONS
ROOT = Path(__file__).parent.parent


# -- a million records


def write_shards(run: Path, records: int, number: int) -> dict[str, float]:
    """Write complete shards of answers, as the runner does, whose own speed ``growth.py`` measures."""
    shards, lines, items = Shard.all_of(number), adapter(Response).dump_json, adapter(ShardItem).dump_json
    text = "How would you answer this? " * 8
    one = Response(
        "ID", Prompt("ID", (Message("user", text),), "helpful", "scale"), Completion(text, "m", "stop", 40, 40)
    )
    before, _, after = lines(one).partition(b"ID")
    files = []
    for shard in shards:
        folder = shard.folder(run) / layout.RESPONSES
        folder.mkdir(parents=True)
        files.append([(folder / name).open("wb") for name in (layout.RECORDS, layout.ITEMS)])
    counts = [0] * number
    for place in range(records):
        name = f"{place:016x}.0"
        index = seed_of("shard", name) % number
        files[index][0].write(before + name.encode() + after + b"\n")
        files[index][1].write(items(ShardItem(place, name)) + b"\n")
        counts[index] += 1
    for shard, count, opened in zip(shards, counts, files, strict=True):
        for file in opened:
            file.close()
        write_manifest(run, shard, count, records)
    return {}


def write_manifest(run: Path, shard: Shard, count: int, records: int) -> None:
    stage, notes = shard.folder(run) / layout.RESPONSES, {"shard": str(shard), "items": records}
    now, output = datetime.now(UTC).isoformat(timespec="seconds"), digest_file(stage / layout.RECORDS)
    manifest = StageManifest(
        layout.RESPONSES, {}, {}, output, count, 0, 40 * count, 40 * count, 1.0, now, notes, versions(), None,
        digests_in(stage),
    )  # fmt: skip
    (stage / layout.MANIFEST).write_text(json.dumps(asdict(manifest)))
    (shard.folder(run) / layout.RUN).write_text('{"stages": {}}')


def merge_all(run: Path, records: int) -> dict[str, float]:
    """Merge the shards in this process."""
    start, cpu = time.perf_counter(), time.process_time()
    shards = whole_shards(run, layout.RESPONSES)
    assert shards
    shards.check({}, {}, "the recipe")
    merged = shards.merge(Response, 0)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_mib()
    assert len(merged.records) == records
    return {"seconds": seconds, "cpu": cpu, "peak": peak, "records": records}


def in_process(*words: object) -> dict[str, float]:
    command = [sys.executable, __file__, *map(str, words)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    return {key: float(value) for key, value in json.loads(out.stdout).items()}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def index(records: Path) -> dict[str, float]:
    """Read the index of records, as a worker that goes on with them does."""
    kept = RowIndex(records, Response)
    return {"peak": peak_mib(), "records": len(kept)}


def read_prompts(file: Path) -> dict[str, float]:
    """Read prompts as the driver and every worker do."""
    kept = load_prompts_of_kind(str(file), "red_team")
    return {"peak": peak_mib(), "records": len(kept.train)}


def merged_again(place: Path, records: int, number: int) -> dict[str, float]:
    in_process("shards", place, records, number)
    return in_process("merge", place, records)


def at_ten_million(measured: Sequence[dict[str, float]], share: int = 1) -> float:
    """Return the memory in GiB for a ``share`` of ten million records, from that for two smaller numbers."""
    few, many = measured
    growth = (many["peak"] - few["peak"]) / (many["records"] - few["records"])
    return (many["peak"] + growth * (TEN_MILLION / share - many["records"])) / 1024


def merging(place: Path) -> list[Row]:
    sizes = (RECORDS // 4, RECORDS)
    merges = [merged_again(place / str(size), size, SHARDS) for size in sizes]
    one, all_shards = merged_again(place / "one", RECORDS // SHARDS, 1), merges[-1]
    files = [place / str(size) / layout.RESPONSES / layout.RECORDS for size in sizes]
    indices = [in_process("index", file) for file in files]
    prompts = [in_process("prompts", prompt_file(place, size)) for size in sizes]
    cpu = all_shards["cpu"]
    return [
        under(f"peak memory of merging {RECORDS:,} records of {SHARDS} shards", all_shards["peak"], "MiB", 954),
        Row("CPU time of merging a record, with all checks", 1e6 * cpu / RECORDS, "µs"),
        under(
            "CPU time of the merge, times that of its shards by themselves", cpu / one["cpu"] / SHARDS, "", 1.2
        ),
        Row("10 million records, computed: driver in a merge", at_ten_million(merges), "GiB"),
        Row(
            f"10 million records, computed: index of one of {SHARDS} shards",
            at_ten_million(indices, SHARDS),
            "GiB",
        ),
        Row(
            "10 million prompts of 30 letters, computed: driver and each worker", at_ten_million(prompts), "GiB"
        ),
    ]


# -- runs on Ray


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    return {**os.environ, "PYTHONPATH": path, "CAI_API_KEY": "none"}


def recipe(server: FaultyServer, out: Path, prompts: int, concurrency: int) -> list[str]:
    """Write a recipe of one round of revisions, and return the command that runs it."""
    model = f"server:m@{server.url}"
    settings = {
        "out": str(out),
        "models": {"helpful": model, "pretrained": "scripted:echo", "feedback": "scripted:coin-flips"},
        "prompts": {"red_team": {"limit": prompts, "file": str(prompt_file(out.parent, prompts))}}
        | {kind: {"limit": 1} for kind in ("helpful", "borderline")},
        "responses": {"per_helpful_prompt": 1},
        "revisions": {"rounds": 1, "style": "critiqued", "clean": []},
        "concurrency": concurrency,
    }
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "constitutional_ai", "run", str(file), "--until", STAGE]


def prompt_file(folder: Path, prompts: int) -> Path:
    file = folder / f"{prompts}.jsonl"
    rows = [{"prompt": f"Tell me secret number {n}.", "split": "train"} for n in range(prompts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def records(run: Path) -> str:
    """Return a digest of all records."""
    texts = [(run / stage / layout.RECORDS).read_bytes() for stage in (layout.RESPONSES, STAGE)]
    return hashlib.sha256(b"".join(texts)).hexdigest()


def finish(command: list[str], place: Path) -> None:
    done = subprocess.run(command, env=environment(), cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def workers_of_ray(place: Path) -> list[int]:
    """Return the processes of the actors of a command that was typed in a folder."""
    actors = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_ours = (process / "cwd").readlink() == place
            if is_ours and (process / "cmdline").read_bytes().startswith(b"ray::ShardWorker"):
                actors.append(int(process.name))
    return actors


def kill_worker(driver: subprocess.Popen[str]) -> None:
    os.kill(workers_of_ray(Path(f"/proc/{driver.pid}/cwd").readlink())[0], signal.SIGKILL)


def kill_driver(driver: subprocess.Popen[str]) -> None:
    driver.kill()
    driver.wait()


def kill_both(driver: subprocess.Popen[str]) -> None:
    kill_worker(driver)
    kill_driver(driver)


def killed(
    server: FaultyServer, command: list[str], place: Path, answers: int, kill: Callable[[Any], None]
) -> None:
    """Run a command, kill something after so many answers, and type it again if it has ended by that."""
    before = server.received
    with subprocess.Popen(
        command, env=environment(), cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        while server.received - before < answers and run.poll() is None:
            time.sleep(0.01)
        assert run.poll() is None, run.communicate()[0]
        kill(run)
        run.communicate()
    if run.returncode:
        finish(command, place)


def identity_and_kills(place: Path) -> list[Row]:
    """Compare runs on Ray, broken and unbroken, with the run of one process."""
    rows, expected, calls = [], "", 3 * PROMPTS + 2
    cases: list[tuple[str, int, Callable[[Any], None] | None]] = [("one process", 0, None)]
    cases += [(f"Ray, {n} workers", n, None) for n in COMPARED]
    cases += [("a worker killed", 2, kill_worker), ("the driver killed", 2, kill_driver)][: 0 if QUICK else 2]
    cases += [("both killed", 2, kill_both)]
    with FaultyServer(lambda number, request: "", seconds=LATENCY) as server:
        for name, workers, kill in cases:
            out, before = place / name.replace(" ", "-") / "run", len(server.answered)
            out.parent.mkdir()
            command = recipe(server, out, PROMPTS, IN_FLIGHT)
            command += ["--on", "ray", "--workers", str(workers)] if workers else []
            if kill:
                killed(server, command, out.parent, calls // 2, kill)
            else:
                finish(command, out.parent)
            expected = expected or records(out)
            differ = float(records(out) != expected)
            repeated = sum(count - 1 for count in Counter(server.answered[before:]).values())
            rows.append(
                under(f"{name}: records that differ from those of one process (1: some)", differ, "", 1)
            )
            rows.append(
                under(f"{name}: calls made again of {calls}", repeated, "", IN_FLIGHT + 1 if kill else 1)
            )
            print(rows[-2:], flush=True)
    return rows


def rates(place: Path) -> list[Row]:
    """Measure the rate of revisions with so many workers, each with one call in flight and as much to do."""
    rows: list[Row] = []
    first = 0.0
    for workers in WORKERS:
        with FaultyServer(lambda number, request: "", seconds=LATENCY) as server:
            out = place / f"rate-{workers}" / "run"
            out.parent.mkdir()
            command = recipe(server, out, PROMPTS_OF_WORKER * workers, workers)
            finish([*command, "--on", "ray", "--workers", str(workers)], out.parent)
            manifest = read_run(out).manifest(STAGE)
            assert manifest
        rate = manifest.records / manifest.seconds
        first = first or rate
        rows.append(Row(f"revisions of {workers} workers, a call takes {LATENCY} s", rate, "records/s"))
        rows.append(at_least(f"share of linear, {workers} workers", rate / workers / first, "", None))
        print(rows[-2:], flush=True)
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        rows = merging(place)
        try:
            import ray  # noqa: F401
        except ModuleNotFoundError:
            print("Runs on Ray are not measured: type pip install 'constitutional-ai[ray]' first.")
        else:
            rows += identity_and_kills(place) + rates(place)
    report("scale", rows)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["shards", run, size, number]:
            print(json.dumps(write_shards(Path(run), int(size), int(number))))
        case ["merge", run, size]:
            print(json.dumps(merge_all(Path(run), int(size))))
        case ["index", file]:
            print(json.dumps(index(Path(file))))
        case ["prompts", file]:
            print(json.dumps(read_prompts(Path(file))))
        case _:
            main()
