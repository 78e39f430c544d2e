"""A disk of a few kilobytes and a disk that is mounted for reading, really mounted where the system lets us."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.runs import layout

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
"""A process whose mounts nobody else sees, and which vanish with it."""
MODELS = [f"models.{role}=scripted:echo" for role in ("helpful", "feedback", "pretrained")]
FEW = [f"prompts.{kind}.limit=20" for kind in ("red_team", "helpful", "borderline")]


def cai(*words: object) -> tuple[int, str]:
    """Run a command, and return its exit status and its errors."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


def run(out: Path, until: str = layout.REVISIONS) -> tuple[int, str]:
    return cai("run", "demo", *MODELS, *FEW, f"out={out}", "--until", until)


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def records(folder: Path) -> list[bytes]:
    return [(folder / stage / layout.RECORDS).read_bytes() for stage in (layout.RESPONSES, layout.REVISIONS)]


def fill(disk: Path) -> None:
    """Run on a disk that is too small, a little larger, and large enough."""
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", disk)
    for larger in ("100k", "16m"):
        status, errors = run(disk / "run")
        assert status == 1, errors
        assert "cai: the disk is full while writing" in errors
        mount("-o", f"remount,size={larger}", disk)
    assert run(disk / "run")[0] == run(disk / "whole")[0] == 0
    assert records(disk / "run") == records(disk / "whole")


def only_read(disk: Path) -> None:
    """Run, look and write while a disk is mounted for reading, and run on afterwards."""
    mount("--bind", disk, disk)
    assert run(disk / "run", layout.RESPONSES)[0] == 0
    mount("-o", "remount,bind,ro", disk)
    for status, errors in (run(disk / "run"), run(disk / "other"), cai("report", disk / "run")):
        assert status == 1, errors
        assert "Read-only file system" in errors
    first = (disk / "run" / layout.RESPONSES / layout.RECORDS).read_text().splitlines()[0]
    assert cai("show", disk / "run", json.loads(first)["id"]) == (0, "")
    assert cai("runs", disk) == (0, "")
    mount("-o", "remount,bind,rw", disk)
    assert run(disk / "run")[0] == 0


@pytest.fixture(autouse=True)
def may_mount() -> None:
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare")
    if subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount")


@pytest.mark.parametrize("work", [fill, only_read], ids=["too small", "mounted for reading"])
def test_the_fault_of_a_disk_is_one_sentence_and_the_same_command_goes_on(
    tmp_path: Path, work: Callable[[Path], None]
) -> None:
    code = f"import pathlib; from tests.runs.test_mounted_disks import {work.__name__} as work"
    code += f"; work(pathlib.Path({str(tmp_path)!r}))"
    command = [*NAMESPACE, sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
