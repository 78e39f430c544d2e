"""After a power cut at any moment the same command ends with what an unbroken run has."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from constitutional_ai.records import Checkpoint, Completion, Message, Prompt, Response
from constitutional_ai.runs import layout, rows
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.run import Run, Trained
from constitutional_ai.runs.runner import Pass, Silent
from tests.runs.power_cut import LOSSES, no_sync, watched, write_tree

NAMES = [str(number) for number in range(4)]
PROMPT = Prompt.of((Message("user", "Hi"),), "helpful", "test")


def make(folder: Path) -> list[str]:
    """Make records and a model, and return what was made: the records, and each training."""
    calls: list[str] = []

    async def step(name: str) -> Response:
        calls.append(name)
        return Response(name, PROMPT, Completion(f"answer {name}", "m", "stop", 2, 1))

    async def passes() -> AsyncIterator[Pass[str, Response]]:
        yield Pass({name: name for name in reversed(NAMES)}, step)

    def train(stage: Path) -> Trained:
        calls.append(stage.name)
        (stage / layout.WEIGHTS).mkdir(exist_ok=True)
        (stage / layout.WEIGHTS / "model.safetensors").write_bytes(b"weights" * 9)
        (stage / layout.STEPS).write_text('{"step": 1}\n')
        return Trained(Checkpoint("model", "base", "digest"), 4)

    with open_run(folder, {layout.RECIPE: "seed: 0\n"}, Silent()) as run:
        run = replace(run, concurrency=1)
        run.make_rows(layout.RESPONSES, Response, passes, config={"seed": 0}, inputs={})
        inputs = {layout.RESPONSES: run.output_digest(layout.RESPONSES)}
        run.make_model(layout.SL_CAI_MODEL, train, config={"seed": 0}, inputs=inputs)
    return calls


def outputs(folder: Path) -> dict[str, bytes]:
    """Return what a run has made, without what it says about its making."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    of_run = [file for file in files if file.name not in (layout.MANIFEST, layout.RUN, layout.LOCK)]
    return {str(file.relative_to(folder)): file.read_bytes() for file in of_run}


def test_a_run_goes_on_after_a_power_cut_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "SYNC_SECONDS", -1)  # so that some records are on the disk and others are not
    root = tmp_path / "disk"
    root.mkdir()
    with watched(root, monkeypatch) as (disk, cuts):
        make(root / "run")
        final = [disk.after_a_cut(loss) for loss in LOSSES]
    whole = outputs(root / "run")
    monkeypatch.setattr(os, "fsync", no_sync)
    assert len(cuts) > 30
    for number, tree in enumerate([*cuts, *final]):
        folder = tmp_path / str(number)
        write_tree(folder, tree)
        complete = {
            stage for stage in layout.STAGES if tree.get(f"run/{stage}/{layout.MANIFEST}", b"").strip(b"\0")
        }
        calls = make(folder / "run")
        assert outputs(folder / "run") == whole
        assert not ({layout.SL_CAI_MODEL} & complete & set(calls))
        assert not (layout.RESPONSES in complete and set(NAMES) & set(calls))
        assert tree not in final or calls == []


def test_records_that_were_synced_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "SYNC_SECONDS", -1)
    root = tmp_path / "disk"
    root.mkdir()
    with watched(root, monkeypatch) as (_, cuts):
        make(root / "run")
    monkeypatch.setattr(os, "fsync", no_sync)
    records = f"run/{layout.RESPONSES}/{layout.RECORDS}"
    half = next(tree for tree in cuts if (tree.get(records) or b"").count(b"\n") == 2)
    write_tree(tmp_path / "half", half)
    assert make(tmp_path / "half" / "run") == ["1", "0", layout.SL_CAI_MODEL]


@pytest.mark.parametrize("content", [b"", b"\0" * 99])
@pytest.mark.parametrize("name", [layout.MANIFEST, layout.RECORDS])
def test_a_file_that_an_earlier_version_did_not_sync_is_made_again(
    tmp_path: Path, name: str, content: bytes
) -> None:
    make(tmp_path / "run")
    stage = tmp_path / "run" / layout.RESPONSES
    whole = outputs(tmp_path / "run")
    (stage / layout.MANIFEST).write_bytes(b"")
    (stage / name).write_bytes(content)
    assert make(tmp_path / "run") == ([*reversed(NAMES)] if name == layout.RECORDS else [])
    assert outputs(tmp_path / "run") == whole


def test_reading_a_run_after_a_power_cut_shows_what_is_whole(tmp_path: Path) -> None:
    make(tmp_path / "run")
    stage = tmp_path / "run" / layout.RESPONSES
    (stage / layout.MANIFEST).unlink()
    records = stage / layout.RECORDS
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(lines[0] + b"\0" * 40 + lines[1][40:] + lines[2])
    assert [row.id for row in Run(tmp_path / "run").rows(layout.RESPONSES, Response)] == [NAMES[-1]]
