"""What was paid for at a server is kept, whenever a run is killed, and asked for once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from constitutional_ai.errors import TooManyFailures, UnreadableAnswer
from constitutional_ai.models.cached import cached
from constitutional_ai.models.load import load_model
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Failure, Response, RevisionChain
from constitutional_ai.runs.rows import read_rows
from tests.faulty_server import FaultyServer
from tests.models.hosted.local_server import ASKED
from tests.pipeline.tiny_run import echoing, make
from tests.runs.test_runner import PROMPT
from tests.runs.test_runner import make as rows

RECORDS, ROUNDS = 6, 3


def asking(server: FaultyServer, out: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of responses and three rounds of revisions by a server, at the paper's temperature."""
    name = f"server:m@{server.url}"
    return echoing(
        out,
        models={"helpful": name, "pretrained": "bundled:smollm2-135m", "feedback": "scripted:echo"},
        prompts={"red_team": {"limit": RECORDS}, "helpful": {"limit": 1}, "borderline": {"limit": 1}},
        revisions={"rounds": ROUNDS, "style": "critiqued", "clean": [], "max_tokens": 64},
        responses={"per_helpful_prompt": 1, "max_tokens": 64},
        **changes,
    )


def repeated(server: FaultyServer) -> list[str]:
    return [request for request, count in Counter(server.answered).items() if count > 1]


def distinct(out: Path) -> int:
    """The number of different texts that the server wrote into the chains."""
    chains = read_rows(out / "02-revisions" / "records.jsonl", RevisionChain)
    steps = [step for chain in chains for step in chain.revisions]
    return len({text for s in steps for text in (s.critique and s.critique.text, s.revised.text)})


def numbered() -> Callable[[dict[str, Any]], str]:
    """Answers that differ at every call, so that records show which one they hold."""
    calls = iter(range(10**6))
    return lambda request: f"The answer number {next(calls)}."


def test_no_completed_call_is_repeated_after_a_kill(tmp_path: Path) -> None:
    with FaultyServer(lambda number, _: "hang" if number in (20, 21, 22) else "", text=numbered()) as server:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(asking(server, tmp_path / "run", concurrency=3)))
        command = [sys.executable, "-m", "constitutional_ai", "run", str(recipe), "--until", "02-revisions"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as killed:
            while server.received < 23 and killed.poll() is None:
                time.sleep(0.02)
            killed.kill()
            said = killed.communicate()[0]
        assert len(server.answered) == 20, said
        make(asking(server, tmp_path / "run", concurrency=3), until="02-revisions")
        assert not repeated(server)
        assert len(server.answered) == RECORDS + 2 + RECORDS * ROUNDS * 2
    assert distinct(tmp_path / "run") == RECORDS * ROUNDS * 2


def test_no_completed_call_is_repeated_after_ctrl_c(tmp_path: Path) -> None:
    def choose(number: int, request: dict[str, Any]) -> str:
        if number == 22:
            os.kill(os.getpid(), signal.SIGINT)
        return "hang" if number in (20, 21, 22) else ""

    with FaultyServer(choose, text=numbered()) as server:
        with pytest.raises(KeyboardInterrupt):
            make(asking(server, tmp_path / "run", concurrency=3), until="02-revisions")
        make(asking(server, tmp_path / "run", concurrency=3), until="02-revisions")
        assert not repeated(server)
    assert distinct(tmp_path / "run") == RECORDS * ROUNDS * 2


def test_an_unreadable_answer_is_drawn_anew(tmp_path: Path) -> None:
    """Votes that name no option fail their record; the same command draws them again, and keeps them then."""
    drawn: Counter[str] = Counter()

    async def step(name: str) -> Response:
        completion = await model.generate(ASKED, Sampling(seed=int(name)))
        drawn[name] += 1
        if drawn[name] == 1:
            raise UnreadableAnswer("no option")
        return Response(name, PROMPT, completion)

    with FaultyServer(lambda number, request: "", text=numbered()) as server:
        name = f"server:m@{server.url}"
        with cached(load_model(name), name, tmp_path / "calls.sqlite", print) as model:
            for failures in (2, 0):
                with suppress(TooManyFailures):
                    rows(tmp_path / "stage", ["0", "1"], step, max_failures=2)
                assert server.received == (2 if failures else 4)


def test_a_record_without_an_answer_keeps_what_its_rounds_have_cost(tmp_path: Path) -> None:
    """The last round of every chain gets nonsense at first. The same command then asks for that round alone."""
    broken = True

    def choose(number: int, request: dict[str, Any]) -> str:
        is_last = json.dumps(request["messages"]).count("Answer") and number >= RECORDS + 2 + 3 * RECORDS
        return "json" if broken and is_last else ""

    with FaultyServer(choose) as server:
        recipe = asking(server, tmp_path / "run", concurrency=RECORDS, max_failures=RECORDS - 1)
        with pytest.raises(TooManyFailures):
            make(recipe, until="02-revisions")
        failed = list(read_rows(tmp_path / "run" / "02-revisions" / "failures.jsonl", Failure))
        assert failed
        broken = False
        make(recipe, until="02-revisions")
        assert not repeated(server)
