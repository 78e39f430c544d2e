"""Records made on Ray are those of one process, also when a worker or the command is killed.

Skipped where Ray is not installed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import pytest
import yaml

from constitutional_ai.runs import layout
from constitutional_ai.runs.runner import Silent
from tests.faulty_server import FaultyServer
from tests.pipeline.tiny_run import echoing, make

if find_spec("ray") is None:  # not imported here: Ray's own settings are read at its import
    pytest.skip("Ray is not installed", allow_module_level=True)
from constitutional_ai.cluster.ray_workers import RayWorkers

PROMPTS, IN_FLIGHT = 24, 4
ROOT = Path(__file__).parent.parent.parent


def asking(server: FaultyServer, out: Path) -> dict[str, Any]:
    models = dict.fromkeys(("pretrained", "feedback"), "scripted:echo") | {"helpful": f"server:m@{server.url}"}
    limits = {"red_team": {"limit": PROMPTS}, "helpful": {"limit": 1}, "borderline": {"limit": 1}}
    revisions = {"rounds": 1, "style": "critiqued", "clean": []}
    return echoing(
        out, models=models, prompts=limits, revisions=revisions, responses={"per_helpful_prompt": 1},
        concurrency=IN_FLIGHT,
    )  # fmt: skip


def killer(server: FaultyServer, place: Path, answers: int, killed: list[int], over: threading.Event) -> None:
    """Kill one worker when the server has given so many answers, unless all is over."""
    while len(server.answered) < answers and not over.is_set():
        time.sleep(0.01)
    killed += workers_of(place)[:1]
    for process in killed:
        os.kill(process, signal.SIGKILL)


def workers_of(place: Path) -> list[int]:
    """The processes of the actors of a command that was typed in a folder."""
    alive = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_ours = (process / "cwd").readlink() == place
            if is_ours and (process / "cmdline").read_bytes().startswith(b"ray::ShardWorker"):
                alive.append(int(process.name))
    return alive


def test_records_on_ray_are_those_of_one_process_also_when_a_worker_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    killed, over = list[int](), threading.Event()
    with FaultyServer(lambda number, request: "", seconds=0.1) as server:
        make(asking(server, tmp_path / "one"), until=layout.REVISIONS)
        before = len(server.answered)
        workers = RayWorkers("ray", 2, 0, str(tmp_path / "two"), print)
        thread = threading.Thread(target=killer, args=(server, tmp_path, before + PROMPTS + 8, killed, over))
        thread.start()
        try:
            make(asking(server, tmp_path / "two"), until=layout.REVISIONS, make_shards=workers.make_shards)
        finally:
            over.set()
            thread.join()
            workers.close()
        repeated = sum(count - 1 for count in Counter(server.answered[before:]).values())
    assert_same(tmp_path)
    assert killed
    assert repeated <= IN_FLIGHT


@pytest.mark.parametrize("with_worker", [False, True], ids=["command", "command and worker"])
def test_a_command_that_is_killed_in_mid_stage_is_typed_again(tmp_path: Path, with_worker: bool) -> None:
    """Orphaned workers end by themselves or hold their shards for a while; the new ones wait for them."""
    with FaultyServer(lambda number, request: "", seconds=0.1) as server:
        make(asking(server, tmp_path / "one"), until=layout.REVISIONS)
        before = len(server.answered)
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(asking(server, tmp_path / "two")))
        words = ["run", str(file), "--until", layout.REVISIONS, "--on", "ray", "--workers", "2"]
        with (tmp_path / "log").open("w") as log, started(words, tmp_path, log) as command:
            while len(server.answered) < before + PROMPTS + 8 and command.poll() is None:
                time.sleep(0.01)
            for process in [*workers_of(tmp_path)[: int(with_worker)], command.pid]:
                os.kill(process, signal.SIGKILL)
        assert command.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
        assert not (tmp_path / "two" / layout.REVISIONS / layout.MANIFEST).exists()
        with (tmp_path / "log").open("w") as log, started(words, tmp_path, log) as again:
            assert again.wait() == 0, (tmp_path / "log").read_text()
        repeated = sum(count - 1 for count in Counter(server.answered[before:]).values())
    assert_same(tmp_path)
    assert repeated <= IN_FLIGHT


def started(words: list[str], place: Path, log: TextIO) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]),
        "CAI_API_KEY": "none",
    }
    command = [sys.executable, "-m", "constitutional_ai", *words]
    return subprocess.Popen(command, env=environment, cwd=place, stdout=log, stderr=subprocess.STDOUT)


def assert_same(folder: Path) -> None:
    """The runs of one process and of two workers have the same records."""
    for stage in (layout.RESPONSES, layout.REVISIONS):
        one, two = (folder / run / stage / layout.RECORDS for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_an_error_of_a_worker_is_that_of_the_command(tmp_path: Path) -> None:
    """The folder that the workers must see is another than the run's."""
    from constitutional_ai.errors import InputError

    workers = RayWorkers("ray", 1, 0, str(tmp_path / "elsewhere"), print)
    try:
        with pytest.raises(InputError, match="does not see"):
            workers.make_shards(layout.RESPONSES, Silent())
    finally:
        workers.close()
