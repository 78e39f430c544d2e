"""Runs that are killed or interrupted, and how many requests work at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from constitutional_ai import machine
from constitutional_ai.records import Response, RevisionChain
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.run import Run
from tests.pipeline.tiny_run import make, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, peft and trl, about each other


@contextmanager
def exact() -> Iterator[None]:
    """Models of this process answer in float64, whose rounding moves no draw: their texts may be compared.

    A resumed run, and one that asks more at once, computes answers in other batches, from other things already known.
    """
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "best_dtype", lambda: torch.float64)
        yield


RUN_EXACT = """
import torch
from constitutional_ai import machine
machine.best_dtype = lambda: torch.float64
from constitutional_ai.cli import main
main()
"""


def small(model: str, out: Path, **changes: Any) -> dict[str, Any]:
    """Stages 01 and 02 only, one record after another: about five seconds."""
    return settings(
        model,
        out,
        prompts={"red_team": {"limit": 12}, "helpful": {"limit": 6}, "borderline": {"limit": 6}},
        responses={"max_tokens": 40},
        revisions={"rounds": 1, "max_tokens": 40},
        concurrency=1,
        **changes,
    )


def started(asked: dict[str, Any], folder: Path) -> subprocess.Popen[str]:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(asked))
    command = [sys.executable, "-c", RUN_EXACT, "run", str(path), "--until", "02-revisions"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.005)


@exact()
def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(model: str, tmp_path: Path) -> None:
    whole, _ = make(small(model, tmp_path / "whole"), until="02-revisions")
    asked = small(model, tmp_path / "broken")
    process = started(asked, tmp_path)
    records = tmp_path / "broken" / "01-responses" / "records.jsonl"
    wait_for_lines(records, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "broken" / "01-responses" / "stage.json").exists()
    half = len(list(read_rows(records, Response)))
    assert 3 <= half < len(whole.rows("01-responses", Response))
    with records.open("ab") as file:
        file.write(b'{"id": "torn')
    broken, _ = make(asked, until="02-revisions")
    for stage, row_type in (("01-responses", Response), ("02-revisions", RevisionChain)):
        assert broken.rows(stage, row_type) == whole.rows(stage, row_type)
        assert broken.output_digest(stage) == whole.output_digest(stage)


def test_an_interrupted_run_says_how_to_go_on(model: str, tmp_path: Path) -> None:
    process = started(small(model, tmp_path / "run"), tmp_path)
    wait_for_lines(tmp_path / "run" / "01-responses" / "records.jsonl", 1, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip().endswith(
        "cai: interrupted. What was finished is kept: type the same command to continue."
    )
    assert "Traceback" not in said


@pytest.fixture(scope="module")
@exact()
def one_and_many(model: str, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Stages 01 and 02 made one record after another, and sixteen at once."""
    made = []
    for concurrency in (1, 16):
        asked = {**small(model, tmp_path_factory.mktemp("runs") / "run"), "concurrency": concurrency}
        made.append(make(asked, until="02-revisions")[0])
    return made


STAGE_ROWS = [("01-responses", Response), ("02-revisions", RevisionChain)]


@pytest.mark.parametrize(("stage", "row_type"), STAGE_ROWS)
def test_how_many_work_at_once_changes_no_record(one_and_many: list[Run], stage: str, row_type: type) -> None:
    one, many = ({row.id: row for row in run.rows(stage, row_type)} for run in one_and_many)
    assert one == many


@pytest.mark.parametrize(("stage", "row_type"), STAGE_ROWS)
def test_how_many_work_at_once_changes_no_order_that_a_training_sees(
    one_and_many: list[Run], stage: str, row_type: type
) -> None:
    one, many = ([row.id for row in run.rows(stage, row_type)] for run in one_and_many)
    assert one == many


def test_a_run_until_a_stage_has_no_later_ones(model: str, tmp_path: Path) -> None:
    run, _ = make(small("scripted:echo", tmp_path / "run"), until="01-responses")
    assert sorted(p.name for p in run.folder.iterdir() if p.is_dir()) == ["01-responses"]
    assert read_run(tmp_path / "run").manifest("01-responses").records == 12 + 2 * 12
