"""A finished run whose command is given again, with the same recipe or with another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import GateClosed, StageChanged
from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.pipeline import PIPELINE
from constitutional_ai.records import Answer
from constitutional_ai.runs.layout import STAGES
from constitutional_ai.runs.rows import digest_file, read_rows
from constitutional_ai.stages import feedback, job, reinforcement, supervised
from tests.pipeline.tiny_run import make, settings

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
