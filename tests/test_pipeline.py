"""The whole method on a tiny random model: every stage real, every number small."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from constitutional_ai import machine
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.errors import CaiError, GateClosed, StageChanged
from constitutional_ai.models import load
from constitutional_ai.models.local import hugging_face
from constitutional_ai.models.model import Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.pipeline import PIPELINE, run_pipeline
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import (
    Answer,
    Checkpoint,
    Comparison,
    Draft,
    GateAnswer,
    Metric,
    PreferenceLabel,
    Prompt,
    Response,
    RevisionChain,
)
from constitutional_ai.report.card import write_cards
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.layout import STAGES
from constitutional_ai.runs.rows import adapter, digest_file, read_rows
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Silent
from constitutional_ai.sl_cai.draft_prompts import EARLIER
from constitutional_ai.stages import feedback, job, reinforcement, supervised
from constitutional_ai.training import launch

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, peft and trl, about each other


@pytest.fixture(scope="session")
def model(make_tiny: Callable[..., Path]) -> str:
    made = make_tiny(max_position_embeddings=4096)  # a token is a byte or so: questions are long
    # The preference model is of another family: other tokens, and no chat template of its own.
    make_tiny(chat=False, vocabulary=270, max_position_embeddings=4096).rename(f"{made}-pm")
    return f"hf:{made}"


def settings(model: str, out: Path, **changes: Any) -> dict[str, Any]:
    own = f"{model}-pm" if model.startswith("hf:") else None
    asked = {
        "out": str(out),
        "models": {"helpful": model, "pretrained": model, "feedback": model, "preference_model": own},
        "prompts": {"red_team": {"limit": 6}, "helpful": {"limit": 4}, "borderline": {"limit": 4}},
        "responses": {"max_tokens": 8, "per_helpful_prompt": 1},
        "revisions": {"rounds": 2, "style": "critiqued", "max_tokens": 8},
        "sl_cai": {"batch_size": 8, "max_length": 1024, "learning_rate": 1e-3},
        "comparisons": {"max_tokens": 8},
        "feedback": {"method": "likelihood"},
        "preference_model": {"batch_size": 4, "max_length": 1024, "helpfulness": {"limit": 4}, "lora_rank": 2},
        "rl_cai": {"batch_size": 4, "answers": 2, "prompts": 4, "max_tokens": 6, "lora_rank": 2},
        "evaluation": {"red_team": 3, "helpful": 2, "borderline": 2, "max_tokens": 8},
    }
    return {**asked, **changes}


def make(asked: dict[str, Any], **how: Any) -> tuple[Run, list[str]]:
    said: list[str] = []
    recipe = Recipe.model_validate(asked)
    return run_pipeline(recipe, progress=Silent(), notify=said.append, after_stage=write_cards, **how), said


@pytest.fixture(scope="module")
def finished(model: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All eight stages, once. Tests that change the run take a ``copied`` one."""
    return make(settings(model, tmp_path_factory.mktemp("runs") / "run"))[0]


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Path:
    return shutil.copytree(finished.folder, tmp_path / "run")


def written(folder: Path) -> dict[str, tuple[int, str]]:
    """When and with what each file of the stages was written."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.parent != folder]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, digest_file(p)) for p in files}


def test_the_command_line_knows_every_stage() -> None:
    assert tuple(PIPELINE) == STAGES


def test_every_stage_is_complete_and_proves_what_it_was_made_from(finished: Run) -> None:
    for stage in STAGES[1:]:  # it asks for no generated prompts
        done = finished.manifest(stage)
        assert done is not None
        assert done.records > 0
        for name, digest in done.inputs.items():
            if name in STAGES:
                assert digest == finished.output_digest(name)


def test_every_record_goes_back_to_a_prompt(finished: Run) -> None:
    responses = {r.id: r for r in finished.rows("01-responses", Response)}
    assert sum(r.prompt.kind == "red_team" for r in responses.values()) == 6
    chains = finished.rows("02-revisions", RevisionChain)
    assert {c.id for c in chains} == {r.id for r in responses.values() if r.prompt.kind == "red_team"}
    assert all(c.initial == responses[c.id] and len(c.revisions) == 2 for c in chains)
    labels = finished.rows("05-preference-labels", PreferenceLabel)
    comparisons = {c.id: c for c in finished.rows("04-comparisons", Comparison)}
    assert {label.id for label in labels} == set(comparisons)
    assert all(label.comparison == comparisons[label.id] and 0 <= label.probability_a <= 1 for label in labels)
    assert len(finished.rows("05-preference-labels", GateAnswer, "gate.jsonl")) >= 40


def test_the_trainers_saw_what_the_stages_before_made(finished: Run) -> None:
    def dataset(stage: str, file: str = "dataset.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (finished.stage(stage) / file).read_text().splitlines()]

    chains = finished.rows("02-revisions", RevisionChain)
    revisions = [r.revised.text for c in chains for r in c.revisions if r.fault is None]
    answers = [row["completion"][0]["content"] for row in dataset("03-sl-cai-model")]
    assert answers[: len(revisions)] == revisions  # SL-16
    labels = {x.id: x.probability_a for x in finished.rows("05-preference-labels", PreferenceLabel)}
    pairs, held_out = dataset("06-preference-model"), dataset("06-preference-model", "held_out.jsonl")
    assert len(held_out) == 1
    assert {x["id"]: x["p_chosen"] for x in pairs + held_out if x["source"] == "ai"} == labels  # PM-4
    assert not {row["prompt_id"] for row in pairs} & {row["prompt_id"] for row in held_out}
    assert [row["p_chosen"] for row in pairs if row["source"] == "people"] == [1.0] * 4  # PM-1
    assert len(dataset("07-rl-cai-model")) == 4


def test_the_preference_model_may_be_of_another_family(finished: Run) -> None:
    from transformers import AutoTokenizer

    policy, scorer = [
        AutoTokenizer.from_pretrained(finished.stage(stage) / "model")
        for stage in ("07-rl-cai-model", "06-preference-model")
    ]
    assert policy.get_vocab() != scorer.get_vocab()
    assert policy.chat_template != scorer.chat_template
    steps = (finished.stage("07-rl-cai-model") / "metrics.jsonl").read_text().splitlines()
    assert all(math.isfinite(json.loads(step)["reward"]) for step in steps)


def test_stage_json_says_what_the_trainings_were_made_of(finished: Run) -> None:
    notes = finished.manifest("06-preference-model").notes
    assert notes["sources"] == {"ai": 5, "people": 4}
    assert (notes["held_out"], notes["cut_for_helpful_share"], notes["unusable"]) == ({"ai": 1}, {}, {})
    made = finished.manifest("03-sl-cai-model").notes["sources"]
    assert made == {"revisions": made["revisions"], "helpful": 8} and made["revisions"] > 0


def test_helpful_rows_make_up_the_share_that_the_recipe_asks_for(
    copied: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SL-16, PM-1."""
    for module, name in ((supervised, "finetune"), (feedback, "train_preference_model")):
        monkeypatch.setattr(module, name, lambda *_: Checkpoint("model", "base", "digest"))
    asked = settings(model, copied)
    asked["preference_model"] = {**asked["preference_model"], "helpful_share": 0.25}
    run, told = make(asked, redo="06-preference-model", until="06-preference-model")
    made = run.manifest("06-preference-model").notes
    assert made["sources"] == {"ai": 5, "people": 2}  # of 5 and 4
    assert made["cut_for_helpful_share"] == {"people": 2}
    assert "leaves out 2 × people for preference_model.helpful_share=0.25." in told[-1]
    before = run.manifest("03-sl-cai-model").notes["sources"]["revisions"]
    asked["sl_cai"] = {**asked["sl_cai"], "helpful_share": 0.25}
    run, told = make(asked, redo="03-sl-cai-model", until="03-sl-cai-model")
    assert run.manifest("03-sl-cai-model").notes["sources"] == {
        "revisions": before,
        "helpful": round(before / 3),
    }


def test_three_models_answer_the_same_prompts_that_no_training_saw(finished: Run) -> None:
    answers = finished.rows("08-evaluation", Answer)
    asked = {
        role: {a.response.prompt.id for a in answers if a.model == role}
        for role in ("start", "sl-cai", "rl-cai")
    }
    assert all(len(ids) >= 6 for ids in asked.values())
    held_out = {
        p.id for kind in ("red_team", "helpful", "borderline") for p in load_prompts("built-in", kind).held_out
    }
    assert set().union(*asked.values()) <= held_out
    trained = {r.prompt.id for r in finished.rows("01-responses", Response)}
    trained |= {c.prompt.id for c in finished.rows("04-comparisons", Comparison)}
    assert not trained & held_out
    assert all(a.reward is not None for a in answers)
    metrics = adapter(list[Metric]).validate_json(
        (finished.stage("08-evaluation") / "metrics.json").read_bytes()
    )
    assert {m.model for m in metrics} == {"start", "sl-cai", "rl-cai"}
    assert all(m.value is not None or m.count == 0 for m in metrics)


def test_the_three_models_differ(finished: Run) -> None:
    weights = [
        finished.manifest(stage).output
        for stage in ("03-sl-cai-model", "06-preference-model", "07-rl-cai-model")
    ]
    assert len(set(weights)) == 3


def test_every_trained_model_has_a_card_with_its_evaluation_and_its_digest_still_holds(finished: Run) -> None:
    for stage in ("03-sl-cai-model", "06-preference-model", "07-rl-cai-model"):
        folder, done = finished.stage(stage) / "model", finished.manifest(stage)
        text = (folder / "README.md").read_text()
        assert f"{done.records} rows: " in text and sum(done.notes["sources"].values()) == done.records
        assert "| Score on red-team prompts" in text
        assert done.output == launch.digest_of_weights(folder)


def test_the_run_holds_its_whole_recipe_and_constitution(finished: Run, model: str) -> None:
    assert Recipe.model_validate(
        yaml.safe_load((finished.folder / "recipe.yaml").read_text())
    ) == Recipe.model_validate(settings(model, finished.folder))
    assert (
        finished.manifest("02-revisions").inputs["constitution"]
        == finished.rows("02-revisions", RevisionChain)[0].constitution
    )


class Stopped(Exception):
    pass


DPO = {"algorithm": "dpo", "kl_weight": 0.1}


@pytest.mark.parametrize(("stage", "how"), [(3, {}), (6, {}), (7, {}), (7, DPO)])
def test_every_training_reports_to_the_trackers_that_the_recipe_names(
    copied: Path, model: str, monkeypatch: pytest.MonkeyPatch, stage: int, how: dict[str, Any]
) -> None:
    def stop(trainer: Any, job: Any) -> None:
        raise Stopped(trainer.args.report_to, trainer.args.run_name)

    monkeypatch.setitem(sys.modules, "trackio", MagicMock(__spec__=ModuleSpec("trackio", None)))
    monkeypatch.setattr(launch, "train", stop)
    asked = settings(model, copied, report_to=["trackio"])
    with pytest.raises(Stopped) as stopped:
        make({**asked, "rl_cai": asked["rl_cai"] | how}, redo=STAGES[stage])
    assert stopped.value.args == (["trackio"], str(copied / STAGES[stage]))


# -- revisions that are none


def untidy(context: str) -> str:
    """A revision that begins with an opener, loops, is empty, repeats the first answer, or is as it should be."""
    if not context.endswith("Human: Rewrite it.\n\nAssistant:"):
        return "Take them all."
    number = sum(map(ord, context)) % 5
    return ("Here is the revised response: No.", "No. " * 20, "", "Take them all.", "Ask a doctor.")[number]


def revised(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **revisions: Any
) -> tuple[Run, list[str], list[dict[str, Any]]]:
    """A run until SL-CAI with an untidy model: the run, what was told, and the rows that were to be trained on."""
    monkeypatch.setattr(load, "load_model", lambda name, **_: ScriptedModel(say=untidy))
    monkeypatch.setattr(supervised, "finetune", lambda *_: Checkpoint("model", "base", "digest"))
    mine = folder / "mine.yaml"
    mine.write_text(
        "name: mine\nprinciples:\n  - {name: p, revision: Rewrite it.}\n"
        "  - {name: q, preference: Which one, upheld: U., broken: B.}\n"
    )
    asked = settings(model, folder / "run", constitution=str(mine), prompts={"red_team": {"limit": 30}})
    asked["revisions"] = {"rounds": 2, "style": "direct", **revisions}
    run, told = make(asked, until="03-sl-cai-model")
    lines = (run.stage("03-sl-cai-model") / "dataset.jsonl").read_text().splitlines()
    return run, told, [row for row in map(json.loads, lines) if "/r" in row["id"]]


def test_what_is_cleaned_away_is_counted_told_and_not_trained_on(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told, rows = revised(model, tmp_path, monkeypatch)
    revisions = [r for c in run.rows("02-revisions", RevisionChain) for r in c.revisions]
    found = run.manifest("02-revisions").notes["cleaned"]
    assert found == {
        "opener": sum(r.cut is not None for r in revisions),
        **{why: sum(r.fault == why for r in revisions) for why in ("empty", "identical", "repetition")},
    }
    assert all(found.values()) and len(revisions) == 60
    assert [line for line in told if line.startswith("02-revisions: 60 revisions; ")]
    sound = [r.revised.text for r in revisions if r.fault is None]
    assert [row["completion"][0]["content"] for row in rows] == sound
    assert {"No.", "Ask a doctor."} < set(sound)


def test_without_cleaning_every_revision_is_trained_on_as_it_came_back(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told, rows = revised(model, tmp_path, monkeypatch, clean=[])
    chains = run.rows("02-revisions", RevisionChain)
    revisions = [r.revised.text for c in chains for r in c.revisions]
    assert [row["completion"][0]["content"] for row in rows] == revisions
    assert {"Here is the revised response: No.", "Take them all."} < set(revisions)
    assert run.manifest("02-revisions").notes == {"cleaned": {}}
    assert run.manifest("02-revisions").failures > 0  # nothing said is no record, as there is no rule for it
    assert not [line for line in told if line.startswith("02-revisions")]


# -- other ways to RL-CAI


def rl(copied: Path, model: str, how: dict[str, Any], **changes: Any) -> tuple[Run, list[str]]:
    """The finished run's RL-CAI made anew, and what is evaluated from it."""
    asked = settings(model, copied, **changes)
    return make({**asked, "rl_cai": {**asked["rl_cai"], **how}}, redo="07-rl-cai-model")


def metrics_of(run: Run) -> list[dict[str, Any]]:
    lines = (run.stage("07-rl-cai-model") / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_dpo_learns_from_the_labels_alone(copied: Path, model: str) -> None:
    """No preference model is trained, and none scores the evaluation."""
    shutil.rmtree(copied / "06-preference-model")
    run, _ = rl(copied, model, {"algorithm": "dpo", "kl_weight": 0.1, "max_length": 1024})
    assert not run.stage("06-preference-model").exists()
    rows = (run.stage("07-rl-cai-model") / "dataset.jsonl").read_text().splitlines()
    assert Counter(json.loads(row)["source"] for row in rows) == {"ai": 6, "people": 4}
    assert {"rewards/margins", "loss"} <= metrics_of(run)[-1].keys()
    assert "05-preference-labels" in run.manifest("07-rl-cai-model").inputs
    assert {a.reward for a in run.rows("08-evaluation", Answer)} == {None}


def test_the_feedback_model_itself_may_be_the_reward(copied: Path, model: str) -> None:
    run, _ = rl(copied, model, {"reward": "feedback"})
    logged = metrics_of(run)
    assert all(-1 <= row["reward"] <= 1 and row["unscored"] == 0 for row in logged)
    assert "feedback.method" in run.manifest("07-rl-cai-model").config


def test_a_batch_may_be_used_twice(copied: Path, model: str) -> None:
    """Only the first pass samples answers, and only it logs how many were scored."""
    run, _ = rl(copied, model, {"passes": 2})
    assert len(metrics_of(run)) == 4
    assert run.manifest("07-rl-cai-model").notes["unscored"] == 0


def test_snapshots_are_models_and_a_figure_above_its_limit_ends_the_training(copied: Path, model: str) -> None:
    how = {"epochs": 4, "snapshot_every": 4, "stop_above": {"words": 0}}
    own = settings(model, copied)["evaluation"]
    run, told = rl(copied, model, how, evaluation={**own, "snapshots": True})
    # 2 prompts a step, 2 steps an epoch: 8 steps, had the third batch not ended it
    assert [row["step"] for row in metrics_of(run)] == [1, 2, 3]
    stopped = run.manifest("07-rl-cai-model").notes["stopped"]
    assert stopped.startswith("words was ") and stopped.endswith("above its limit of 0, after step 3")
    assert f"07-rl-cai-model: stopped early: {stopped}." in told
    (snapshot,) = (run.stage("07-rl-cai-model") / "snapshots").iterdir()
    assert snapshot.name == "00000004"
    asked = Counter(a.model for a in run.rows("08-evaluation", Answer))
    assert asked["rl-cai@00000004"] == asked["rl-cai"] > 0
    loaded = hugging_face.HuggingFaceModel("snapshot", snapshot)
    assert asyncio.run(loaded.generate("Hi", Sampling(max_tokens=2))).completion_tokens


def test_a_preference_model_may_be_pretrained_on_other_pairs_first(copied: Path, model: str) -> None:
    """PM-3: the training proper goes on from the head that the first one left."""
    import torch
    from safetensors.torch import load_file

    rows = [{"prompt": f"Q{n}?", "chosen": "Yes, of course.", "rejected": "No"} for n in range(4)]
    (copied / "forum.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = {"file": str(copied / "forum.jsonl"), "learning_rate": 0.2}
    whole = {"batch_size": 4, "max_length": 1024, "helpfulness": {"limit": 4}, "learning_rate": 1e-9}
    asked = settings(model, copied, preference_model={**whole, "pretraining": first})
    run, _ = make(asked, redo="06-preference-model", until="07-rl-cai-model")
    made = run.stage("06-preference-model")
    learned = [json.loads(line) for line in (made / "pretraining" / "dataset.jsonl").read_text().splitlines()]
    assert [row["chosen"][0]["content"] for row in learned] == ["Yes, of course."] * 4
    heads = [load_file(f / "model" / "model.safetensors")["score.weight"] for f in (made, made / "pretraining")]
    # A rate of nothing leaves the head where the pretraining did, a step of 0.2 from where it is drawn.
    assert torch.allclose(*heads, atol=0.05)
    assert set(run.manifest("06-preference-model").inputs) >= {"pretraining", "helpfulness"}  # type: ignore[union-attr]


def test_a_second_preference_model_learns_from_other_prompts_and_watches(copied: Path, model: str) -> None:
    asked = settings(model, copied)
    asked["preference_model"] = {**asked["preference_model"], "second": True}
    run, _ = make(asked, redo="06-preference-model", until="07-rl-cai-model")
    stage = run.stage("06-preference-model")
    seen = [
        {json.loads(row)["prompt_id"] for row in (folder / "dataset.jsonl").read_text().splitlines()}
        for folder in (stage, stage / "second")
    ]
    assert all(seen) and not seen[0] & seen[1]
    assert all({"second_reward", "reward", "evasive", "boilerplate"} <= row.keys() for row in metrics_of(run))


# -- again


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


def test_a_model_that_has_learned_to_say_nothing_is_measured_and_not_left_out(
    copied: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual collapse of RL. Its empty answers are degenerate ones (``Verdict.degenerate``)."""
    mute, echo = ScriptedModel(say=lambda _: ""), ScriptedModel()
    monkeypatch.setattr(load, "load_model", lambda name, **_: mute if "07-rl-cai-model" in name else echo)
    run, _ = make(settings(model, copied), redo="08-evaluation")
    metrics = adapter(list[Metric]).validate_json((run.stage("08-evaluation") / "metrics.json").read_bytes())
    (found,) = [m for m in metrics if (m.name, m.model) == ("degenerate_rate", "rl-cai")]
    assert (found.value, found.count) == (1.0, 7)


# -- broken off


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
    assert said.strip().endswith("cai: interrupted. Nothing is lost: run the same command again to continue.")
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


# -- what the user can mend shows no traceback, however late it shows


def echoing(out: Path, **changes: Any) -> dict[str, Any]:
    asked = settings("scripted:echo", out)
    return {**asked, "prompts": {k: {"limit": 2} for k in asked["prompts"]}, **changes}


@pytest.mark.parametrize(
    "pretrained", ["hf:no-such-organisation/no-such-model", "hf:./nowhere", "scripted:echo", "hf:{broken}"]
)
def test_a_model_that_cannot_be_trained_is_one_sentence(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: str
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = shutil.copytree(model.removeprefix("hf:"), tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"torn")
    models = {
        "helpful": "scripted:echo",
        "feedback": "scripted:echo",
        "pretrained": pretrained.format(broken=broken),
    }
    with pytest.raises(CaiError) as caught:
        make(echoing(tmp_path / "run", models=models), until="03-sl-cai-model")
    assert "\n" not in str(caught.value)


def test_a_model_without_a_chat_template_can_be_trained_or_is_one_sentence(
    tiny_plain: Path, tmp_path: Path
) -> None:
    models = {"helpful": "scripted:echo", "feedback": "scripted:echo", "pretrained": f"hf:{tiny_plain}"}
    try:
        make(echoing(tmp_path / "run", models=models), until="03-sl-cai-model")
    except CaiError as error:
        assert "\n" not in str(error)


def test_no_prompts_at_all_is_one_sentence(model: str, tmp_path: Path) -> None:
    asked = echoing(tmp_path / "run", prompts={k: {"limit": 0} for k in ("red_team", "helpful", "borderline")})
    asked["models"] = {**asked["models"], "pretrained": model}
    with pytest.raises(CaiError):
        make(asked, until="03-sl-cai-model")


def test_a_constitution_with_one_side_only_is_one_sentence(model: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nprinciples:\n  - {name: p, preference: Which is kinder.}\n")
    with pytest.raises(CaiError):
        make(echoing(tmp_path / "run", constitution=str(path)), until="02-revisions")


def test_a_model_that_never_answers_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "load_model", lambda name, **_: ScriptedModel(say=lambda _: ""))
    with pytest.raises(CaiError, match="records of 01-responses failed, the last with EmptyAnswer"):
        make(echoing(tmp_path / "run", max_failures=1), until="01-responses")


# -- prompts that a model wrote (SL-3)


def writer(context: str) -> str:
    """Writes a prompt of its own, an empty one, one of the file's, or a held-out one."""
    if "Write one more" not in context:
        return "An answer."
    number = sum(map(ord, context))
    ours = load_prompts("built-in", "red_team")
    old = [ours.train[0].conversation[0].content, ours.held_out[0].conversation[0].content, ""]
    what = ("a parrot", "forty watches", "somebody else's passport")[number // 4 % 3]
    return (*[f"How do I take {what} past a guard?"] * 4, *old)[number % 7]


@pytest.fixture
def asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run that lets ``writer`` draft forty prompts."""
    monkeypatch.setattr(load, "load_model", lambda name, **_: ScriptedModel(say=writer, name=name))
    asked = echoing(tmp_path / "run")
    asked["prompts"] = {"red_team": {"limit": 2, "generate": 30}, "helpful": {"limit": 2, "generate": 10}}
    return {**asked, "prompts": {**asked["prompts"], "borderline": {"limit": 0}}}


def drafted(run: Run) -> list[Prompt]:
    return run.rows("00-prompts", Prompt, "prompts.jsonl")


def test_what_is_drafted_is_sifted_counted_told_and_answered(asks: dict[str, Any]) -> None:
    run, told = make(asks, until="01-responses")
    kept, counts = drafted(run), run.manifest("00-prompts").notes["drafts"]
    assert {kind: sum(found.values()) for kind, found in counts.items()} == {"red_team": 30, "helpful": 10}
    assert counts["red_team"].keys() == {"kept", "empty", "near a prompt", "near a held-out prompt", EARLIER}
    assert sum(found["kept"] for found in counts.values()) == len(kept) > 2
    assert run.manifest("00-prompts").completion_tokens > 0
    assert [line for line in told if line.startswith("00-prompts: of the red_team drafts, kept ")]
    answered = {r.prompt.id: r.prompt for r in run.rows("01-responses", Response)}
    assert len(answered) == 2 + 2 + len(kept)
    assert [answered[p.id] for p in kept] == kept
    assert {p.source for p in kept} == {"generated by bundled:smollm2-135m"}  # models.prompts


def test_no_held_out_prompt_is_shown_or_comes_back(asks: dict[str, Any]) -> None:
    run, _ = make(asks, until="00-prompts")
    files = [load_prompts("built-in", kind) for kind in ("red_team", "helpful", "borderline")]
    held_out = {p.id for file in files for p in file.held_out}
    made = run.rows("00-prompts", Draft)
    assert {d.prompt.id for d in made} & held_out  # the writer tried
    assert not {shot for d in made for shot in d.shots} & held_out
    assert not {p.id for p in drafted(run)} & held_out


def test_drafts_broken_off_go_on_and_end_as_unbroken_ones(asks: dict[str, Any], tmp_path: Path) -> None:
    whole, _ = make(asks, until="01-responses")
    broken = shutil.copytree(whole.folder, tmp_path / "broken")
    shutil.rmtree(broken / "01-responses")
    for name in ("stage.json", "prompts.jsonl"):
        (broken / "00-prompts" / name).unlink()
    lines = (broken / "00-prompts" / "records.jsonl").read_bytes().splitlines(keepends=True)
    (broken / "00-prompts" / "records.jsonl").write_bytes(b"".join(lines[25:4:-1]) + lines[0][:20])
    again, _ = make({**asks, "out": str(broken)}, until="01-responses")
    assert again.rows("00-prompts", Draft) == whole.rows("00-prompts", Draft)
    assert drafted(again) == drafted(whole)
    assert again.output_digest("01-responses") == whole.output_digest("01-responses")


def test_where_none_are_asked_for_there_is_no_stage(asks: dict[str, Any]) -> None:
    asks["prompts"] = {kind: {"limit": 2} for kind in asks["prompts"]}
    run, told = make(asks, until="01-responses")
    assert not run.stage("00-prompts").exists()
    assert not [line for line in told if line.startswith("00-prompts")]
    assert {r.prompt.source for r in run.rows("01-responses", Response)} == {
        "red_team.jsonl", "helpful.jsonl", "borderline.jsonl"
    }  # fmt: skip


def test_drafts_are_read_once_however_many_stages_ask(
    asks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, rows = [], Run.rows
    monkeypatch.setattr(Run, "rows", lambda run, *what: read.append(what[-1]) or rows(run, *what))
    for stage in ("03-sl-cai-model", "05-preference-labels", "06-preference-model", "07-rl-cai-model"):
        monkeypatch.setitem(PIPELINE, stage, lambda job: job.training_prompts("red_team"))
    monkeypatch.setitem(PIPELINE, "04-comparisons", lambda job: job.training_prompts("helpful"))
    make(asks, until="07-rl-cai-model")
    assert read.count("prompts.jsonl") == 1


def test_other_drafts_are_refused_and_lost_ones_are_made_anew_on_request(asks: dict[str, Any]) -> None:
    whole, _ = make(asks, until="01-responses")
    more = {**asks, "prompts": {**asks["prompts"], "red_team": {"limit": 2, "generate": 31}}}
    with pytest.raises(StageChanged, match=r"00-prompts was made with prompts\.red_team\.generate: 30"):
        make(more)
    none = {**asks, "prompts": {kind: {**file, "generate": 0} for kind, file in asks["prompts"].items()}}
    with pytest.raises(StageChanged, match="01-responses was made from another version of prompts"):
        make(none)
    before = drafted(whole)
    (whole.stage("00-prompts") / "prompts.jsonl").unlink()
    with pytest.raises(CaiError, match="Pass --redo 00-prompts"):
        make(asks, until="01-responses")
    again, _ = make(asks, until="01-responses", redo="00-prompts")
    assert drafted(again) == before


def test_a_file_too_small_to_draft_from_is_one_sentence(asks: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "One?", "split": "train"}\n')
    asks["prompts"]["red_team"] = {"file": str(file), "generate": 5}
    with pytest.raises(CaiError, match=r"prompts\.red_team\.file has 1\. Lower generation\.shots"):
        make(asks)
