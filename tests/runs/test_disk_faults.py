"""A disk, a folder or a limit that fails is one sentence, tears nothing, and the same command then goes on."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from constitutional_ai.errors import CaiError, DiskFull, InputError
from constitutional_ai.records import Completion, Message, Prompt, Response
from constitutional_ai.runs import layout
from constitutional_ai.runs.disk_faults import FULL, REMEDIES, naming_disk_faults
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Pass, Silent
from tests.faulty_server import FaultyServer, Script

PROMPT = Prompt.of((Message("user", "Hi"),), "helpful", "test")
NOBODY = 65534
ROOT = Path(__file__).parents[2]


def make(folder: Path, at: dict[int, Callable[[], object]] | None = None, length: int = 10) -> list[str]:
    """Make eight records, with something happening ``at`` some of them, and return which were made."""
    calls: list[str] = []

    async def step(name: str) -> Response:
        calls.append(name)
        (at or {}).get(int(name), lambda: None)()
        return Response(name, PROMPT, Completion("x" * length, "m", "stop", 2, 1))

    async def passes() -> AsyncIterator[Pass[str, Response]]:
        yield Pass({str(n): str(n) for n in range(8)}, step)

    with open_run(folder, {layout.RECIPE: "seed: 0\n"}, Silent()) as run:
        replace(run, concurrency=1).make_rows(layout.RESPONSES, Response, passes, config={}, inputs={})
    return calls


def rows(folder: Path) -> list[str]:
    return [row.id for row in Run(folder).rows(layout.RESPONSES, Response)]


def one_sentence(error: CaiError) -> str:
    assert "\n" not in str(error)
    assert str(error).endswith(".")
    return str(error)


@contextmanager
def limit(kind: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@contextmanager
def another_user() -> Iterator[None]:
    """A user without rights for the block, if the tests run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("room", [3000, 4001, 4100, 5000])
def test_a_file_that_may_not_grow_is_one_sentence_and_leaves_no_torn_line(tmp_path: Path, room: int) -> None:
    with limit(resource.RLIMIT_FSIZE, room), pytest.raises(DiskFull) as caught:
        make(tmp_path / "run", length=1000)
    assert "Everything before is kept" in one_sentence(caught.value)
    records = tmp_path / "run" / layout.RESPONSES / layout.RECORDS
    assert records.read_bytes().endswith(b"\n")
    kept = rows(tmp_path / "run")
    assert kept
    assert kept + make(tmp_path / "run", length=1000) == rows(tmp_path / "run")[: len(kept)] + [
        str(n) for n in range(len(kept), 8)
    ]
    assert len(rows(tmp_path / "run")) == 8


def test_no_more_descriptors_is_one_sentence(tmp_path: Path) -> None:
    make(tmp_path / "first")
    free = os.dup(0)
    os.close(free)
    with limit(resource.RLIMIT_NOFILE, free), pytest.raises(InputError) as caught:
        make(tmp_path / "run")
    assert "Raise the limit on open files (ulimit -n)" in one_sentence(caught.value)
    assert len(make(tmp_path / "run")) == 8


def test_64_descriptors_are_enough(tmp_path: Path) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    code += "from constitutional_ai.cli import main; main()"
    models = [f"models.{role}=scripted:echo" for role in ("helpful", "feedback")]
    few = [f"prompts.{kind}.limit=3" for kind in ("red_team", "helpful", "borderline")]
    words = ["run", "demo", *models, *few, f"out={tmp_path / 'run'}", "--until", layout.REVISIONS]
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert Run(tmp_path / "run").manifest(layout.REVISIONS) is not None


def test_64_descriptors_are_enough_for_a_server_that_takes_more_requests_at_once(tmp_path: Path) -> None:
    code = "import asyncio, pathlib, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    code += "from benchmarks.torture_servers import make_records\n"
    code += "from constitutional_ai.models.hosted import pace; pace.FIRST = 100\n"
    code += "asyncio.run(make_records(pathlib.Path(sys.argv[1]), sys.argv[2], 100, 100))"
    with FaultyServer(Script([]), seconds=0.1) as server:
        command = [sys.executable, "-c", code, str(tmp_path), server.url]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert len(list(read_rows(tmp_path / layout.RECORDS, Response))) == 100


@pytest.mark.parametrize("number", [*FULL, *REMEDIES], ids=errno.errorcode.__getitem__)
def test_each_fault_of_a_disk_is_one_sentence(tmp_path: Path, number: int) -> None:
    with pytest.raises(CaiError) as caught, naming_disk_faults(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))
    assert {**FULL, **REMEDIES}[number] in one_sentence(caught.value)
    assert isinstance(caught.value, DiskFull) == (number in FULL)


def test_no_permission_is_one_sentence(shared: Path) -> None:
    make(shared / "run")
    with another_user():
        assert make(shared / "run") == []  # nothing is to be written
        with pytest.raises(InputError, match="no permission to write") as caught:
            make(shared / "new")
    one_sentence(caught.value)
    (shared / "run" / layout.RESPONSES / layout.MANIFEST).unlink()
    with another_user(), pytest.raises(InputError, match="Give yourself permission") as caught:
        make(shared / "run")
    one_sentence(caught.value)
    assert len(rows(shared / "run")) == 8


def test_a_lock_of_another_user_locks_if_it_may_be_read(shared: Path) -> None:
    (shared / "run").mkdir()
    (shared / "run").chmod(0o777)
    lock = shared / "run" / layout.LOCK
    lock.touch()
    lock.chmod(0o600)
    with another_user(), pytest.raises(InputError, match=r"cannot lock .*: Permission denied"):
        make(shared / "run")
    lock.chmod(0o644)
    with another_user():
        assert len(make(shared / "run")) == 8


def test_a_run_that_is_moved_meanwhile_is_not_begun_anew_in_its_old_place(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    with pytest.raises(InputError) as caught:
        make(run, {3: lambda: run.rename(moved)})
    assert "moved or deleted" in one_sentence(caught.value)
    assert not run.exists()
    assert make(moved) in (["4", "5", "6", "7"], [])
    assert rows(moved) == [str(n) for n in range(8)]


def test_a_run_that_is_replaced_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def replaced() -> None:
        run.rename(tmp_path / "moved")
        shutil.copytree(tmp_path / "moved", run)

    with pytest.raises(InputError, match="was moved or deleted while this command worked on it"):
        make(run, {7: replaced})
    assert not (run / layout.RESPONSES / layout.MANIFEST).exists()


@pytest.mark.parametrize(
    "place",
    [
        layout.RUN,
        layout.RECIPE,
        layout.LOCK,
        f"{layout.RESPONSES}/{layout.RECORDS}",
        f"{layout.RESPONSES}/{layout.MANIFEST}",
        f"{layout.RESPONSES}/{layout.FAILURES}",
        f"{layout.RESPONSES}/{layout.LOST}",
    ],
)
def test_a_folder_where_a_file_should_be_is_one_sentence(tmp_path: Path, place: str) -> None:
    make(tmp_path)
    file, kept = tmp_path / place, tmp_path / "kept"
    (tmp_path / layout.RESPONSES / layout.MANIFEST).unlink()
    if file.exists():
        file.rename(kept)
    file.mkdir()
    (file / "inside").touch()
    with pytest.raises(CaiError) as caught:
        make(tmp_path)
    assert str(tmp_path) in one_sentence(caught.value)
    shutil.rmtree(file)
    if kept.exists():
        kept.rename(file)
    make(tmp_path)
    assert len(rows(tmp_path)) == 8


def test_a_file_where_a_stage_should_be_is_one_sentence(tmp_path: Path) -> None:
    make(tmp_path)
    shutil.rmtree(tmp_path / layout.RESPONSES)
    (tmp_path / layout.RESPONSES).touch()
    with pytest.raises(CaiError) as caught:
        make(tmp_path)
    assert layout.RESPONSES in one_sentence(caught.value)


def test_a_missing_file_of_our_own_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), naming_disk_faults(tmp_path / "run"):
        (tmp_path / "elsewhere").read_text()
