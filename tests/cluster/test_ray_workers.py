"""Records made on Ray are those of one process, also when a worker is killed. Skipped where Ray is not installed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.runs import layout
from constitutional_ai.runs.runner import Silent
from tests.faulty_server import FaultyServer
from tests.pipeline.tiny_run import echoing, make

if find_spec("ray") is None:  # not imported here: Ray's own settings are read at its import
    pytest.skip("Ray is not installed", allow_module_level=True)
from constitutional_ai.cluster.ray_workers import RayWorkers

PROMPTS, IN_FLIGHT = 24, 4


def asking(server: FaultyServer, out: Path) -> dict[str, Any]:
    models = dict.fromkeys(("pretrained", "feedback"), "scripted:echo") | {"helpful": f"server:m@{server.url}"}
    limits = {"red_team": {"limit": PROMPTS}, "helpful": {"limit": 1}, "borderline": {"limit": 1}}
    revisions = {"rounds": 1, "style": "critiqued", "clean": []}
    return echoing(
        out, models=models, prompts=limits, revisions=revisions, responses={"per_helpful_prompt": 1},
        concurrency=IN_FLIGHT,
    )  # fmt: skip


def killer(server: FaultyServer, answers: int, killed: list[int], over: threading.Event) -> None:
    """Kill one worker when the server has given so many answers, unless all is over."""
    while len(server.answered) < answers and not over.is_set():
        time.sleep(0.01)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.read_bytes().startswith(b"ray::ShardWorker"):
            killed.append(int(path.parent.name))
            os.kill(killed[-1], signal.SIGKILL)
            return


def test_records_on_ray_are_those_of_one_process_also_when_a_worker_is_killed(tmp_path: Path) -> None:
    killed, over = list[int](), threading.Event()
    with FaultyServer(lambda number, request: "", seconds=0.1) as server:
        make(asking(server, tmp_path / "one"), until=layout.REVISIONS)
        before = len(server.answered)
        workers = RayWorkers("ray", 2, 0, tmp_path / "two", print)
        thread = threading.Thread(target=killer, args=(server, before + PROMPTS + 8, killed, over))
        thread.start()
        try:
            make(asking(server, tmp_path / "two"), until=layout.REVISIONS, make_shards=workers.make_shards)
        finally:
            over.set()
            thread.join()
            workers.close()
        repeated = sum(count - 1 for count in Counter(server.answered[before:]).values())
    for stage in (layout.RESPONSES, layout.REVISIONS):
        one, two = (tmp_path / run / stage / layout.RECORDS for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert killed
    assert repeated <= IN_FLIGHT


def test_an_error_of_a_worker_is_that_of_the_command(tmp_path: Path) -> None:
    """The folder that the workers must see is another than the run's."""
    from constitutional_ai.errors import InputError

    workers = RayWorkers("ray", 1, 0, tmp_path / "elsewhere", print)
    try:
        with pytest.raises(InputError, match="does not see"):
            workers.make_shards(layout.RESPONSES, Silent())
    finally:
        workers.close()
