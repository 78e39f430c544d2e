"""Stages that are made in shards and merged are those that one process makes, byte for byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from constitutional_ai import pipeline
from constitutional_ai.cli import main
from constitutional_ai.errors import CaiError, InputError, StageChanged, TooManyFailures
from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.pipeline import make_shard, merge_shards
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Checkpoint, Response, usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import BudgetSpent
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.run import Trained
from constitutional_ai.runs.runner import Silent
from constitutional_ai.runs.shards import Shard
from constitutional_ai.stages import job as stage_jobs
from tests.pipeline.tiny_run import echoing, make

MADE = {"finished", "seconds"}
"""What ``stage.json`` says of when a stage was made."""


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SL-CAI model is an empty file, and answers as the scripted model does."""

    def train(folder: Path) -> Trained:
        (folder / layout.WEIGHTS).mkdir()
        (folder / layout.WEIGHTS / "config.json").write_text("{}")
        return Trained(Checkpoint(str(folder), "none", "aaaa"), 1)

    def sl_cai_model(job: stage_jobs.Job) -> None:
        inputs = job.outputs(layout.RESPONSES, layout.REVISIONS)
        job.run.make_model(layout.SL_CAI_MODEL, train, config=job.config("sl_cai"), inputs=inputs)

    monkeypatch.setitem(pipeline.PIPELINE, layout.SL_CAI_MODEL, sl_cai_model)
    monkeypatch.setattr(stage_jobs.Job, "trained_model", lambda self, stage: "scripted:echo")


def recipe(out: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of all stages up to the labels, in milliseconds."""
    prompts = {"red_team": {"limit": 7, "generate": 9}, "helpful": {"limit": 3}, "borderline": {"limit": 2}}
    models = dict.fromkeys(("helpful", "pretrained", "prompts"), "scripted:echo")
    models["feedback"] = "scripted:coin-flips"
    return echoing(out, prompts=prompts) | {"models": models, "feedback": {"gate": "warn"}} | changes


def shard(out: Path, stage: str, index: int, of: int, said: list[str] | None = None, **changes: Any) -> None:
    settings = Recipe.model_validate(recipe(out, **changes))
    say = said.append if said is not None else lambda text: None
    make_shard(settings, stage, Shard(index, of), progress=Silent(), notify=say)


def files(folder: Path) -> dict[str, Any]:
    """The content of a stage's files; of ``stage.json`` all but the time."""
    content: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    manifest = json.loads(content.pop(layout.MANIFEST))
    return content | {layout.MANIFEST: {key: value for key, value in manifest.items() if key not in MADE}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """The folder of the run that one process makes, once."""
    folder = tmp_path_factory.mktemp("whole") / "run"

    def get() -> Path:
        if not folder.exists():
            make(recipe(folder), until=layout.PREFERENCE_LABELS)
        return folder

    return get


def test_a_run_in_shards_is_the_run_of_one_process_byte_for_byte(
    tmp_path: Path, whole: Callable[[], Path]
) -> None:
    """Every stage in another number of shards, made in another order; more shards than items among them."""
    out = tmp_path / "run"
    for of, stage in zip((2, 2, 3, 11, 2), layout.SHARDED, strict=True):
        if stage == layout.COMPARISONS:
            make(recipe(out), until=layout.SL_CAI_MODEL)
        for index in range(of, 0, -1):
            shard(out, stage, index, of)
        if stage != layout.RESPONSES:  # which the next whole run merges by itself
            assert merge_shards(out, progress=Silent(), notify=str) == [stage]
        else:
            make(recipe(out), until=stage)
        expected = files(whole() / stage)
        if stage == layout.PREFERENCE_LABELS:  # every shard has asked the gate's questions
            for name in ("prompt_tokens", "completion_tokens"):
                assert files(out / stage)[layout.MANIFEST][name] == expected[layout.MANIFEST][name]
        assert files(out / stage) == expected
        assert not [path for path in (out / layout.SHARDS).glob(f"*/{stage}") if not path.is_symlink()]
    assert read_run(out).started_stages() == read_run(whole()).started_stages()


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A run whose first answers are made in two shards, which are not merged."""
    for index in (1, 2):
        shard(tmp_path / "run", layout.RESPONSES, index, 2, **FEW)
    return tmp_path / "run"


FEW = {"prompts": {"red_team": {"limit": 5}, "helpful": {"limit": 2}, "borderline": {"limit": 2}}}


def folder(run: Path, index: int, of: int = 2, stage: str = layout.RESPONSES) -> Path:
    return Shard(index, of).folder(run) / stage


def merge(run: Path) -> list[str]:
    return merge_shards(run, progress=Silent(), notify=str)


def forgotten(run: Path) -> None:
    (folder(run, 2) / layout.MANIFEST).unlink()


def edited(run: Path) -> None:
    file = folder(run, 2) / layout.RECORDS
    file.write_bytes(file.read_bytes().replace(b"a", b"b", 1))


def doubled(run: Path) -> None:
    """The second shard is a copy of the first."""
    shutil.rmtree(folder(run, 2))
    shutil.copytree(folder(run, 1), folder(run, 2))


def changed(key: str, value: Any) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        path = folder(run, 2) / layout.MANIFEST
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return change


def of_other_number(run: Path) -> None:
    shutil.copytree(Shard(1, 2).folder(run), Shard(1, 3).folder(run), symlinks=True)


def linked(run: Path) -> None:
    Shard(2, 2).folder(run).rename(run.parent / "elsewhere")
    Shard(2, 2).folder(run).symlink_to(run.parent / "elsewhere")


def on_another_engine(run: Path) -> None:
    path = Shard(2, 2).folder(run) / layout.RUN
    about = json.loads(path.read_text())
    about["stages"][layout.RESPONSES]["engines"] = {"m": "vllm"}
    path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        (forgotten, InputError, "and 2/2 is not complete. Type: cai run RECIPE --shard 2/2 --until 01-responses"),
        (edited, InputError, "was changed after 01-responses was complete"),
        (doubled, InputError, "does not fit the others"),
        (changed("config", {"seed": 7}), StageChanged, "was made with seed: 7, the recipe now says 0"),
        (changed("notes", {"items": 12}), InputError, "is one of 12 items, and all shards together have 9"),
        (changed("versions", {"constitutional-ai": "9"}), StageChanged, "different versions of this package"),
        (of_other_number, InputError, "was begun in 2 and in 3 shards"),
        (linked, InputError, "is a link"),
        (on_another_engine, StageChanged, "different versions of an engine: {} and {'m': 'vllm'}"),
    ],
)  # fmt: skip
def test_shards_that_do_not_fit_are_refused_and_kept(
    two: Path, damage: Callable[[Path], None], error: type[CaiError], text: str
) -> None:
    damage(two)
    with pytest.raises(error) as caught:
        merge(two)
    assert text in str(caught.value)
    assert not (two / layout.RESPONSES / layout.MANIFEST).exists()
    assert folder(two, 1).is_dir()


def test_a_shard_that_was_killed_goes_on_and_one_that_is_complete_stays(tmp_path: Path) -> None:
    run, said = tmp_path / "run", list[str]()
    shard(run, layout.RESPONSES, 1, 2, **FEW)
    records = folder(run, 1) / layout.RECORDS
    before = records.read_bytes()
    (folder(run, 1) / layout.MANIFEST).unlink()
    records.write_bytes(before[: len(before) // 2])  # torn in the middle of a line
    for _ in range(2):
        shard(run, layout.RESPONSES, 1, 2, said, **FEW)
    assert records.read_bytes() == before
    with pytest.raises(InputError, match="was begun in 2 shards, not 3"):
        shard(run, layout.RESPONSES, 1, 3, **FEW)
    with pytest.raises(InputError, match=r"needs 01-responses, which is not complete\. Type: cai merge"):
        shard(run, layout.REVISIONS, 1, 2, **FEW)
    with pytest.raises(InputError, match="08-evaluation is not made in shards"):
        shard(run, layout.EVALUATION, 1, 2, **FEW)
    shard(run, layout.RESPONSES, 2, 2, **FEW)
    assert merge(run) == [layout.RESPONSES]
    shard(run, layout.RESPONSES, 2, 2, said, **FEW)
    assert said[-1].endswith("shard 2/2 has nothing to do.")
    assert merge(run) == []


def test_a_stage_that_was_begun_without_shards_stays_so(tmp_path: Path) -> None:
    make(recipe(tmp_path / "run", **FEW), until=layout.RESPONSES)
    (tmp_path / "run" / layout.RESPONSES / layout.MANIFEST).unlink()
    with pytest.raises(InputError, match="was begun without shards"):
        shard(tmp_path / "run", layout.RESPONSES, 1, 2, **FEW)


def test_failures_are_counted_over_all_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is empty, and fails; no shard has six."""
    monkeypatch.setattr(load, "scripted", lambda name: ScriptedModel(say=lambda context: ""))
    with pytest.raises(TooManyFailures, match="6 records of 01-responses failed"):
        for index in range(1, 5):
            shard(tmp_path / "run", layout.RESPONSES, index, 4, **FEW, max_failures=5)


def test_a_budget_is_that_of_all_shards_together(tmp_path: Path, whole: Callable[[], Path]) -> None:
    """Shards that take turns spend what is there, but for the first record of each, and go on with a higher budget."""
    run, spent = tmp_path / "run", 0
    tokens, dearest = 150, 40
    for index in (1, 2):
        with suppress(BudgetSpent):
            shard(run, layout.RESPONSES, index, 2, **FEW, budget={"tokens": tokens})
    for index in (1, 2):
        spent += sum(sum(usage(row)) for row in read_rows(folder(run, index) / layout.RECORDS, Response))
    assert tokens / 2 < spent < tokens + 2 * dearest
    with pytest.raises(BudgetSpent):
        shard(run, layout.RESPONSES, 1, 2, **FEW, budget={"tokens": spent})
        shard(run, layout.RESPONSES, 2, 2, **FEW, budget={"tokens": spent})
    for index in (1, 2):
        shard(run, layout.RESPONSES, index, 2, **FEW, budget={"tokens": 10_000})
    assert merge(run) == [layout.RESPONSES]


def test_the_command_makes_shards_and_merges_them(tmp_path: Path) -> None:
    file, out = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe(out, **FEW)))
    stage = layout.RESPONSES
    for words, code, text in (
        (("run", file, "--shard", "1/2"), 1, "--shard needs a stage"),
        (("run", file, "--shard", "3/2", "--until", stage), 1, "'3/2' names no shard"),
        (("run", file, "--shard", "1/2", "--until", stage, "--redo", stage), 1, "work on a whole run"),
        (("run", file, "--on", "ssh://there"), 1, "--on is 'ray', or"),
        (("run", file, "--shard", "1/2", "--until", stage), 0, f"shard 1/2 of {stage} is complete"),
        (("run", file, "--until", stage), 1, f"{stage} is made in 2 shards, and 2/2 is not complete."),
        (("run", file, "--shard", "2/2", "--until", stage), 0, f"shard 2/2 of {stage} is complete"),
        (("merge", out), 0, f"merged in {out}: {stage}."),
        (("merge", out), 0, "has no shards to merge"),
    ):
        result = CliRunner().invoke(main, list(map(str, words)), env={"COLUMNS": "400"})
        assert (result.exit_code, text in result.output) == (code, True), result.output
