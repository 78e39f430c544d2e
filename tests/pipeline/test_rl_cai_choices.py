"""Other ways to RL-CAI and to its preference model than the default one."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.models.local import hugging_face
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Answer
from constitutional_ai.runs.run import Run
from tests.pipeline.tiny_run import make, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, peft and trl, about each other


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


@pytest.mark.parametrize("reward", ["feedback", "groupwise", "propositions"])
def test_the_feedback_model_itself_may_be_the_reward(copied: Path, model: str, reward: str) -> None:
    run, _ = rl(copied, model, {"reward": reward})
    logged = metrics_of(run)
    assert reward != "groupwise" or all(row["reward"] == pytest.approx(0.5) for row in logged)
    assert all(-1 <= row["reward"] <= 1 and row["unscored"] == 0 for row in logged)
    assert "feedback.method" in run.manifest("07-rl-cai-model").config


def test_a_batch_may_be_used_twice(copied: Path, model: str) -> None:
    """Only the first pass samples answers, and only it logs how many were scored."""
    run, _ = rl(copied, model, {"passes": 2})
    assert len(metrics_of(run)) == 4
    assert run.manifest("07-rl-cai-model").notes["unscored"] == 0


def test_snapshots_are_models_and_a_figure_above_its_limit_ends_the_training(copied: Path, model: str) -> None:
    how = {"epochs": 4, "snapshot_every": 4, "stop_above": {"words": 0}}
    run, told = rl(copied, model, how)
    # 2 prompts a step, 2 steps an epoch: 8 steps, had the third batch not ended it
    assert [row["step"] for row in metrics_of(run)] == [1, 2, 3]
    stopped = run.manifest("07-rl-cai-model").notes["stopped"]
    assert stopped.startswith("words was ") and stopped.endswith("above its limit of 0, after step 3")
    assert f"07-rl-cai-model: stopped early: {stopped}." in told
    (snapshot,) = (run.stage("07-rl-cai-model") / "snapshots").iterdir()
    assert snapshot.name == "00000004"
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
