"""A run of a stranger makes no command read or write what is not in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import open_run, read_run
from constitutional_ai.runs.runner import Silent

MAKE: dict[str, Callable[[Path], None]] = {
    "a file of the user's": lambda path: path.symlink_to("../../secret"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "itself": lambda path: path.symlink_to(path.name),
    "nothing": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("{}")
    stage = tmp_path / "run" / layout.RESPONSES
    stage.mkdir(parents=True)
    (tmp_path / "run" / layout.RUN).write_text('{"stages": {}}')
    return tmp_path / "run"


@pytest.mark.parametrize("what", MAKE)
@pytest.mark.parametrize("file", [layout.RECORDS, "records.jsonl.part", layout.MANIFEST])
def test_a_file_that_is_none_is_refused(run: Path, what: str, file: str) -> None:
    MAKE[what](run / layout.RESPONSES / file)
    with pytest.raises(InputError, match=f"{layout.RESPONSES}/{file} is"):
        read_run(run)
    with pytest.raises(InputError, match=file), open_run(run, {}, Silent()):
        pass
    assert (run.parent / "secret").read_text() == "{}"


def test_every_command_that_reads_a_run_refuses_it(run: Path) -> None:
    (run / "report.html").symlink_to("../secret")
    for words in (["report"], ["show"], ["export", "--to", "parquet", "--out", "o"], ["chat"]):
        command, *options = words
        more = ["x"] if command == "show" else []
        result = CliRunner().invoke(main, [command, str(run), *more, *options])
        assert "report.html is a link that leads out of its folder" in result.stderr
    assert (run.parent / "secret").read_text() == "{}"


def test_folders_may_be_links_and_so_may_files_within(run: Path) -> None:
    other = run.parent / "other"
    (run / layout.RESPONSES).rename(other)
    (run / layout.RESPONSES).symlink_to(other)
    (other / "a").write_text("")
    (other / "b").symlink_to("a")
    (run / "model.safetensors").symlink_to("/nowhere/model.safetensors")
    assert read_run(run).folder == run
    (other / "c").symlink_to("../secret")
    with pytest.raises(InputError, match="c is a link"):
        read_run(run)
