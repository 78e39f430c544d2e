"""What is there does not go on under other settings, weights, engines or versions, and links lead nowhere else."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from constitutional_ai.errors import InputError, StageChanged, TooManyFailures
from constitutional_ai.records import Checkpoint
from constitutional_ai.runs import durable, guarded_run, layout, written_files
from constitutional_ai.runs.folder import open_run, read_run
from constitutional_ai.runs.run import Run, Trained
from constitutional_ai.runs.runner import Silent
from tests.runs.power_cut import no_sync
from tests.runs.test_run import CONFIG, INPUTS, make, run

__all__ = ["run"]
OTHER = {**CONFIG, "revisions.rounds": 2}
STAGE = layout.RESPONSES


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is synced: no power is cut here."""
    monkeypatch.setattr(os, "fsync", no_sync)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("calls", range(1, 8))
def test_a_redo_that_is_killed_keeps_no_record_under_other_settings(
    run: Run, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Killed before any of the first system calls that delete, rename or sync."""
    make(run)
    left = iter(range(calls))

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(left, None) is None:
                raise Killed
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for name in ("rename", "replace", "unlink", "rmdir", "fsync"):
            patch.setattr(os, name, counted(getattr(os, name)))
        run.remove_stages(STAGE)
        raise Killed
    try:
        assert make(run, OTHER) == ["0", "1", "2", "3", "4"]
    except StageChanged:
        assert make(run) == []  # nothing was removed


def test_records_of_unknown_settings_are_refused(run: Run) -> None:
    with pytest.raises(TooManyFailures):
        make(run, fail=2)
    (run.folder / layout.RUN).unlink()
    with pytest.raises(StageChanged, match=f"nothing says with which settings .* Pass --redo {STAGE}"):
        make(run)
    run.remove_stages(STAGE)
    assert len(make(run)) == 5


def test_what_a_killed_process_was_writing_is_deleted(tmp_path: Path) -> None:
    with open_run(tmp_path, {}, Silent()) as run:
        make(run)
    parts = ["run.json.part", f"{STAGE}/stage.json.part", f"{layout.RL_CAI_MODEL}/snapshots/8.part/model"]
    parts += [f"{layout.REVISIONS}.part/records.jsonl"]
    for part in parts:
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).write_text("torn")
    busy = tmp_path / layout.SUITE
    busy.mkdir()
    (busy / layout.LOCK).touch()
    (busy / "metrics.json.part").touch()
    with open_run(tmp_path, {}, Silent()):
        assert [path.name for path in tmp_path.rglob("*.part")] == ["metrics.json.part"]


# -- links


@pytest.fixture
def linked(run: Run, tmp_path: Path) -> Iterator[Run]:
    """A run whose first stage is that of ``run``."""
    make(run)
    with open_run(tmp_path / "linked", {}, Silent()) as opened:
        (tmp_path / "linked" / STAGE).symlink_to(run.stage(STAGE))
        yield opened


def test_a_stage_that_is_a_link_is_read_and_checked(linked: Run, run: Run) -> None:
    assert make(linked) == []
    records = run.stage(STAGE) / layout.RECORDS
    records.write_bytes(records.read_bytes().replace(b"x", b"y", 1))
    with pytest.raises(InputError, match="was changed after"):
        make(linked)


def test_redo_of_a_link_makes_the_stage_here_and_keeps_what_it_leads_to(linked: Run, run: Run) -> None:
    shown: list[str] = []
    before = {path: path.read_bytes() for path in run.stage(STAGE).iterdir()}
    replace(linked, say=shown.append).remove_stages(STAGE)
    assert shown == [f"{linked.stage(STAGE)} is a link, and is removed. {run.stage(STAGE)} is kept."]
    assert len(make(linked, OTHER)) == 5
    assert not linked.stage(STAGE).is_symlink()
    assert {path: path.read_bytes() for path in run.stage(STAGE).iterdir()} == before


@pytest.mark.parametrize("gone", [True, False])
def test_a_link_to_what_is_not_complete_is_not_written_to(linked: Run, run: Run, gone: bool) -> None:
    if gone:
        shutil.rmtree(run.stage(STAGE))
    else:
        (run.stage(STAGE) / layout.MANIFEST).unlink()
        (run.stage(STAGE) / layout.RECORDS).write_bytes(b"")
    with pytest.raises(InputError, match=f"is a link to .* Delete the link, or pass --redo {STAGE}"):
        make(linked)


def test_a_stage_may_lie_on_another_disk(run: Run, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    run.stage(STAGE).symlink_to(tmp_path / "disk")
    assert len(make(run)) == 5
    assert make(run) == []
    assert (tmp_path / "disk" / layout.MANIFEST).exists()


# -- engines and versions


def half(run: Run) -> None:
    with pytest.raises(TooManyFailures):
        make(run, fail=3)


def test_a_half_made_stage_keeps_its_engine(run: Run) -> None:
    half(run)
    run.hold_engine(STAGE, "hf:m", "native")
    run.hold_engine(STAGE, "hf:m", "native")
    with pytest.raises(StageChanged, match=f"on the engine native.*CAI_ENGINE=native .* --redo {STAGE}"):
        run.hold_engine(STAGE, "hf:m", "openvino")
    assert make(run) == ["2", "3", "4"]
    with pytest.raises(StageChanged):  # as when failures are tried again
        run.hold_engine(STAGE, "hf:m", "openvino")
    run.remove_stages(STAGE)
    make(run)
    run.hold_engine(STAGE, "hf:m", "openvino")


@pytest.mark.parametrize("complete", [True, False])
def test_another_version_of_this_package_makes_no_half_of_a_stage(
    run: Run, monkeypatch: pytest.MonkeyPatch, complete: bool
) -> None:
    make(run) if complete else half(run)
    monkeypatch.setattr(guarded_run, "versions", lambda: {"constitutional-ai": "9"})
    if complete:
        assert make(run) == []
    else:
        with pytest.raises(StageChanged, match=r"was begun with constitutional-ai .* and this is 9"):
            make(run)


def test_other_packages_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    half(run)
    shown: list[str] = []
    now = {**guarded_run.versions(), "torch": "0"}
    monkeypatch.setattr(guarded_run, "versions", lambda: now)
    assert make(replace(run, say=shown.append)) == ["2", "3", "4"]
    assert [line for line in shown if "torch" in line and line.startswith(f"warning: {STAGE} goes on")]


# -- files of complete stages

FILES = ["model/model.safetensors", "model/config.json", "adapter/a.json", "second/model/x", "snapshots/8/y"]
FILES += [layout.DATASET, layout.STEPS, layout.HELD_OUT_PAIRS, layout.PREFERENCE_MODEL_REPORT]


def trained(run: Run) -> Path:
    """Make a stage with one file of each kind, and return its folder."""

    def train(folder: Path) -> Trained:
        for name in FILES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode() * 20)
        return Trained(Checkpoint("model", "base", "digest"), 1)

    run.make_model(layout.RL_CAI_MODEL, train, config=CONFIG, inputs=INPUTS)
    return run.stage(layout.RL_CAI_MODEL)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("change", [flipped, shortened, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_every_file_of_a_complete_stage_is_checked(run: Run, name: str, change: Callable[[Path], None]) -> None:
    folder = trained(run)
    trained(run)  # nothing is trained again, and nothing is refused
    change(folder / name)
    for read in (lambda: trained(run), lambda: read_run(run.folder).check(layout.RL_CAI_MODEL)):
        with pytest.raises(InputError, match=f"{name} was .* with --redo {layout.RL_CAI_MODEL}"):
            read()


def test_large_files_are_read_when_something_is_made_of_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_files, "LARGE", 10)
    flipped(trained(run) / FILES[0])
    run.check(layout.RL_CAI_MODEL)
    with pytest.raises(InputError, match="was changed"):
        run.check(layout.RL_CAI_MODEL, in_full=True)
    later = {layout.RL_CAI_MODEL: run.output_digest(layout.RL_CAI_MODEL)}
    with pytest.raises(InputError, match="was changed"):
        make(run, inputs=later)
    shortened(run.stage(layout.RL_CAI_MODEL) / FILES[0])
    with pytest.raises(InputError, match="was changed"):
        run.check(layout.RL_CAI_MODEL)


def test_cards_may_be_written_again(run: Run) -> None:
    (trained(run) / "model" / "README.md").write_text("A card.")
    trained(run)


def test_checkpoints_are_deleted_when_the_stage_is_complete_or_at_the_next_command(run: Run) -> None:
    checkpoints = trained(run) / layout.CHECKPOINTS
    checkpoints.mkdir()
    trained(run)
    assert not checkpoints.exists()


def test_a_run_that_lacks_a_tenth_of_its_records_is_refused(run: Run) -> None:
    make(run)
    records = run.stage(STAGE) / layout.RECORDS
    lines = records.read_bytes().splitlines(keepends=True)
    del lines[random.Random(0).randrange(len(lines))]
    records.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match="was changed"):
        make(run)


def test_an_old_run_does_not_name_the_files_of_its_models(run: Run) -> None:
    make(run)
    now = {**INPUTS, "the files of models.helpful": "abcd"}
    assert make(run, inputs=now) == []
    run.remove_stages(STAGE)
    make(run, inputs=now)
    with pytest.raises(StageChanged, match=r"from another version of the files of models.helpful"):
        make(run, inputs={**now, "the files of models.helpful": "ef"})


def test_a_folder_goes_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "a").touch()
    monkeypatch.setattr(durable.shutil, "rmtree", lambda path, **_: None)
    durable.discard(folder)
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["stage.part"]
