"""A finished run whose command is given again, with the same recipe or with another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.errors import CaiError, GateClosed, InputError, StageChanged
from constitutional_ai.evaluation.candidates import find_candidates
from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.pipeline import PIPELINE
from constitutional_ai.records import Answer
from constitutional_ai.report.export.parquet import to_parquet
from constitutional_ai.report.page.page import write_report
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.layout import STAGES
from constitutional_ai.runs.rows import digest_file, read_rows
from constitutional_ai.serve.score_file import preference_model_folder
from constitutional_ai.stages import feedback, job, reinforcement, supervised
from tests.pipeline.tiny_run import echoing, make, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, peft and trl, about each other


def written(folder: Path) -> dict[str, tuple[int, str]]:
    """When and with what each file of the stages was written."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.parent != folder]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, digest_file(p)) for p in files}


def nothing(*_: object, **__: object) -> Any:
    raise AssertionError("a model was loaded or trained though nothing is owed")


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "load_model", nothing)
    for module, name in (
        (supervised, "finetune"),
        (feedback, "train_preference_model"),
        (reinforcement, "reinforce"),
        (reinforcement, "PreferenceModel"),
        (job, "PreferenceModel"),
    ):
        monkeypatch.setattr(module, name, nothing)


def test_a_finished_run_makes_nothing_and_loads_no_model(no_models: None, copied: Path, model: str) -> None:
    before = {name: digest for name, (_, digest) in written(copied).items()}
    make(settings(model, copied))
    assert {name: digest for name, (_, digest) in written(copied).items()} == before


def test_a_torn_last_stage_is_made_whole_without_the_others(copied: Path, model: str) -> None:
    records = copied / "08-evaluation" / "records.jsonl"
    whole = {row.id: row for row in read_rows(records, Answer)}
    records.write_bytes(records.read_bytes()[:-30])
    (copied / "08-evaluation" / "stage.json").unlink()
    before = written(copied)
    run, _ = make(settings(model, copied))
    again = {row.id: row for row in run.rows("08-evaluation", Answer)}
    assert again.keys() == whole.keys()
    changed = {k for k, v in written(copied).items() if before.get(k) != v}
    # Cards, and what lies beside them, quote the evaluation; what is answered alone may round otherwise.
    assert {k.split("/")[0] for k in changed if not k.endswith((".md", ".yaml"))} == {"08-evaluation"}


def test_redo_makes_a_stage_and_all_later_ones_anew(
    copied: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for stage in STAGES[7:]:
        monkeypatch.setitem(PIPELINE, stage, lambda job, stage=stage: made.append(stage))
    make(settings(model, copied), redo="07-rl-cai-model")
    assert made == list(STAGES[7:])
    assert not (copied / "07-rl-cai-model").exists()
    assert not (copied / "08-evaluation").exists()
    assert (copied / "06-preference-model" / "stage.json").exists()


CHANGED = [  # (change, the stage that refuses, what it says)
    ({"seed": 1}, "01-responses was made with seed: 0, the recipe now says 1."),
    (
        {"revisions": {"rounds": 1, "max_tokens": 8}},
        "02-revisions was made with revisions.rounds: 2, the recipe now says 1.",
    ),
    (
        {"evaluation": {"red_team": 2, "helpful": 2, "borderline": 2, "max_tokens": 8}},
        "08-evaluation was made with evaluation.red_team: 3, the recipe now says 2.",
    ),
    ({"prompts": {"red_team": {"limit": 5}}}, "01-responses was made from another version of prompts."),
]


@pytest.mark.parametrize(("change", "said"), CHANGED, ids=[said[:12] for _, said in CHANGED])
def test_a_changed_recipe_is_refused_and_nothing_is_touched(
    no_models: None, copied: Path, model: str, change: dict[str, Any], said: str
) -> None:
    before = written(copied)
    with pytest.raises(StageChanged) as caught:
        make(settings(model, copied, **change))
    assert said in str(caught.value)
    assert f"Pass --redo {said.split()[0]}" in str(caught.value)
    assert written(copied) == before


def test_a_refused_recipe_does_not_take_the_place_of_the_one_that_made_the_run(
    copied: Path, model: str
) -> None:
    before = (copied / "recipe.yaml").read_text()
    with pytest.raises(StageChanged):
        make(settings(model, copied, seed=1))
    assert (copied / "recipe.yaml").read_text() == before


OTHER = """
name: mine
principles:
  - {name: p, revision: Be kind., preference: Which is kinder., upheld: a kind one, broken: an unkind one}
"""


@pytest.fixture
def other(tmp_path: Path) -> str:
    """Another constitution."""
    file = tmp_path / "mine.yaml"
    file.write_text(OTHER)
    return str(file)


@pytest.mark.parametrize("lost", ["", "01-responses/stage.json"])
def test_a_constitution_that_made_nothing_takes_the_place_of_none(
    copied: Path, model: str, other: str, lost: str
) -> None:
    if lost:  # the stage goes on, though later ones are complete and were made under the other constitution
        (copied / lost).unlink()
    files = ("constitution.yaml", "recipe.yaml", "03-sl-cai-model/model/README.md")
    before = [(copied / name).read_text() for name in files]
    asked = settings(model, copied, constitution=other)
    if lost:
        with pytest.raises(StageChanged, match="02-revisions was made from another version of constitution"):
            make(asked, until="01-responses")
    else:
        _, said = make(asked, until="01-responses")
        assert said[-1].startswith(f"recipe.yaml and constitution.yaml in {copied} are kept")
    assert [(copied / name).read_text() for name in files] == before


def test_a_stage_that_is_begun_writes_what_it_is_made_with(tmp_path: Path, other: str) -> None:
    run, _ = make(echoing(tmp_path / "run"), until="01-responses")
    first = (run.folder / "constitution.yaml").read_text()
    make(echoing(tmp_path / "run", constitution=other), until="01-responses")
    assert (run.folder / "constitution.yaml").read_text() == first
    make(echoing(tmp_path / "run", constitution=other), until="02-revisions")
    assert (run.folder / "constitution.yaml").read_text() != first
    assert load_constitution(run.folder / "constitution.yaml").digest == run.manifest(
        "02-revisions"
    ).inputs["constitution"]  # fmt: skip


@pytest.mark.parametrize("lost", ["recipe.yaml", "constitution.yaml"])
def test_a_lost_file_is_written_again_if_it_is_the_one_that_made_the_run(
    tmp_path: Path, other: str, lost: str
) -> None:
    run, _ = make(echoing(tmp_path / "run"), until="02-revisions")
    before = (run.folder / lost).read_text()
    (run.folder / lost).unlink()
    with pytest.raises(StageChanged, match="02-revisions was made from another version of constitution"):
        make(echoing(tmp_path / "run", constitution=other), until="01-responses")
    assert not (run.folder / lost).exists()
    make(echoing(tmp_path / "run"), until="01-responses")
    assert (run.folder / lost).read_text() == before


def test_a_stage_in_which_nothing_was_made_holds_no_setting(tmp_path: Path) -> None:
    asked = echoing(tmp_path / "run")
    typo = {**asked, "models": {**asked["models"], "helpful": f"hf:{tmp_path}/no-such-folder"}}
    with pytest.raises(CaiError):
        make(typo, until="01-responses")
    run, _ = make(asked, until="01-responses")
    assert run.manifest("01-responses").config["models.helpful"] == "scripted:echo"
    typo = {**asked, "models": {**asked["models"], "pretrained": f"hf:{tmp_path}/no-such-folder"}}
    for wrong in (typo, {**typo, "seed": 0, "sl_cai": {"batch_size": 4, "max_length": 1024}}):
        with pytest.raises(
            CaiError, match="no-such-folder"
        ):  # each time of the model, not of the other settings
            make(wrong, until="03-sl-cai-model")


@pytest.mark.parametrize(
    ("until", "redo", "said"),
    [
        ("01-responses", "02-revisions", None),
        ("02-revisions", "02-revisions", "--redo 02-revisions removes nothing"),
        ("01-responses", "00-prompts", "--redo 00-prompts makes only later stages again"),
    ],
)
def test_a_redo_that_does_nothing_says_so(tmp_path: Path, until: str, redo: str, said: str | None) -> None:
    asked = echoing(tmp_path / "run")
    make(asked, until="01-responses")
    if said is None:
        with pytest.raises(InputError, match=f"--redo {redo} would do nothing: {until} comes before it"):
            make(asked, until=until, redo=redo)
    else:
        assert any(line.startswith(said) for line in make(asked, until=until, redo=redo)[1])
    assert not any("redo" in line for line in make(asked, until="01-responses", redo="01-responses")[1])


@pytest.mark.parametrize("stage", ["01-responses", "05-preference-labels", "08-evaluation"])
def test_an_edited_record_is_noticed_by_the_run_and_by_its_report(copied: Path, model: str, stage: str) -> None:
    records = copied / stage / "records.jsonl"
    records.write_bytes(records.read_bytes().replace(b"red_team", b"helpful", 1))
    for read in (
        lambda: make(settings(model, copied)),
        lambda: to_parquet(read_run(copied), copied.parent / "x"),
    ):
        with pytest.raises(InputError, match=f"{stage}/records.jsonl was changed after {stage} was complete"):
            read()


READERS: list[tuple[str, Callable[[Path], object]]] = [
    ("03-sl-cai-model/model/model.safetensors", lambda folder: find_candidates([str(folder)])),
    ("07-rl-cai-model/model/tokenizer.json", lambda folder: find_candidates([str(folder)])),
    ("06-preference-model/model/model.safetensors", lambda folder: preference_model_folder(str(folder))),
    ("06-preference-model/report.json", lambda folder: write_report(read_run(folder))),
    ("07-rl-cai-model/metrics.jsonl", lambda folder: write_report(read_run(folder))),
    ("08-evaluation/metrics.json", lambda folder: to_parquet(read_run(folder), folder.parent / "x")),
]


@pytest.mark.parametrize(("file", "read"), READERS, ids=[file for file, _ in READERS])
def test_a_changed_file_is_noticed_by_whoever_reads_it(
    copied: Path, file: str, read: Callable[[Path], object]
) -> None:
    content = bytearray((copied / file).read_bytes())
    content[-2] ^= 1
    (copied / file).write_bytes(content)
    with pytest.raises(InputError, match=f"{file} was changed after"):
        read(copied)


def test_a_run_that_lacks_a_tenth_of_its_records_gets_no_report(tmp_path: Path) -> None:
    asked = echoing(tmp_path / "run", responses={"max_tokens": 8, "per_helpful_prompt": 5})
    run, _ = make(asked, until="01-responses")
    write_report(run)
    records = run.stage("01-responses") / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    kept = Random(0).sample(range(len(lines)), len(lines) * 9 // 10)
    records.write_bytes(b"".join(lines[n] for n in sorted(kept)))
    for read in (lambda: write_report(read_run(run.folder)), lambda: make(asked, until="01-responses")):
        with pytest.raises(InputError, match=r"01-responses/records\.jsonl was changed after"):
            read()


def test_a_refused_redo_removes_nothing(copied: Path, model: str) -> None:
    before = written(copied)
    with pytest.raises(StageChanged):  # 01-responses refuses; 07 and 08 must still be there
        make(settings(model, copied, seed=1), redo="07-rl-cai-model")
    assert written(copied) == before


def test_a_model_at_chance_closes_the_gate_where_the_recipe_says_stop(
    copied: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_model", lambda name, **_: ScriptedModel())
    asked = settings(model, copied, feedback={"method": "multiple_choice", "gate": "stop"})
    with pytest.raises(GateClosed, match=r"To continue anyway, set feedback\.gate=warn"):
        make(asked, redo="05-preference-labels")
    assert not (copied / "05-preference-labels" / "stage.json").exists()
