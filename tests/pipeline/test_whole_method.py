"""All stages on a tiny random model: what each makes, and what it is made from."""

from __future__ import annotations

import json
import math
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.pipeline import PIPELINE
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import (
    Answer,
    Checkpoint,
    Comparison,
    GateAnswer,
    Metric,
    PreferenceLabel,
    Response,
    RevisionChain,
)
from constitutional_ai.runs.layout import STAGES
from constitutional_ai.runs.rows import adapter
from constitutional_ai.runs.run import Run
from constitutional_ai.stages import feedback, supervised
from constitutional_ai.training import launch
from tests.pipeline.tiny_run import make, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, peft and trl, about each other


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
    ai = [row for row in pairs + held_out if row["source"] == "ai"]
    assert {row["id"]: row["p_chosen"] for row in ai} == {n: max(p, 1 - p) for n, p in labels.items()}  # PM-4
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
