"""Reinforcement with one base model in memory, by tiny models that LoRA really trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from constitutional_ai import machine
from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.prompts import KINDS, load_prompts
from constitutional_ai.errors import ModelError
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Checkpoint, Completion, Conversation, Message, Prompt, Response
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.rl_cai.preference_model.train import train_preference_model
from constitutional_ai.rl_cai.preference_model.training_pairs import helpfulness
from constitutional_ai.rl_cai.reinforcement.adapters import (
    HEAD,
    WEIGHTS,
    AdapterScores,
    SharedBase,
    lent,
    policy_on,
)
from constitutional_ai.rl_cai.reinforcement.algorithms import AlgorithmName
from constitutional_ai.rl_cai.reinforcement.feedback_reward import FeedbackReward
from constitutional_ai.rl_cai.reinforcement.reinforce import examples, reinforce
from constitutional_ai.runs.layout import SECOND
from constitutional_ai.runs.run import Run
from constitutional_ai.sl_cai.finetune import examples as revision_rows
from constitutional_ai.sl_cai.finetune import finetune
from constitutional_ai.stages import reinforcement
from constitutional_ai.stages.job import Job
from constitutional_ai.training import launch
from constitutional_ai.training.callbacks import Snapshots
from constitutional_ai.training.settings import Training
from tests.rl_cai.reinforcement.test_reinforce import HOW, changed, each_algorithm, kill_at, logged
from tests.training.jobs import training_job

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about transformers

LORA = Training(batch_size=4, learning_rate=1e-2, epochs=2, lora_rank=2, checkpoint_steps=1)
SL_CAI, PM = "03-sl-cai-model", "06-preference-model"
TALKS: list[Conversation] = [
    (Message("user", asked), Message("assistant", said))
    for asked, said in (
        ("Hi", "Hello"),
        ("How do I bake bread?", "Mix flour and water, and wait. " * 4),
        ("?", ""),
    )
]
IDS = torch.arange(20, 60)[None]


def in_float32(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine, "best_dtype", lambda: torch.float32)


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SL-CAI and two preference models, made of the same model; what is whole is saved without rounding."""
    folder = tmp_path_factory.mktemp("run")
    prompt = Prompt.of((Message("user", "How do I bake bread?"),), "helpful", "test")
    answers = [Response(str(n), prompt, Completion(f"Mix {n} cups.", "m", "stop", 0, 0)) for n in range(8)]
    for stage in (SL_CAI, PM, f"{PM}/{SECOND}"):
        (folder / stage).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        in_float32(patch)
        finetune(training_job(revision_rows([], answers), tiny, folder / SL_CAI, LORA))
        for seed, stage in enumerate((PM, f"{PM}/{SECOND}")):
            rows = helpfulness("built-in", 8, seed).rows
            train_preference_model(training_job(rows, tiny, folder / stage, LORA, seed=seed))
    return folder


@pytest.fixture(params=[5e-4, 0.5], ids=["float32", "fast type"])
def near(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """How near logits of the two ways must be, that go up to about 6."""
    if request.param < 0.1:
        in_float32(monkeypatch)
    return {"rtol": 0.0, "atol": request.param}


@pytest.fixture
def base(tiny: Path, run: Path) -> SharedBase:
    shared = policy_on(tiny, run / SL_CAI, LORA)
    assert shared is not None
    return shared


@pytest.fixture
def policy(base: SharedBase) -> Any:
    return base.model


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(IDS).logits.float()
    return found


def whole(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=machine.best_dtype())


# -- the same models


def test_the_policy_begins_as_sl_cai_and_its_bare_base_is_the_pretrained_model(
    near: dict[str, float], tiny: Path, run: Path, policy: Any
) -> None:
    sl_cai, pretrained = logits(whole(run / SL_CAI / "model")), logits(whole(tiny))
    assert (sl_cai - pretrained).abs().max() > 1
    torch.testing.assert_close(logits(policy), sl_cai, **near)
    with lent(policy, None):
        assert torch.equal(logits(policy), pretrained)


def test_scores_by_the_adapter_are_those_of_the_whole_preference_model(
    near: dict[str, float], run: Path, base: SharedBase
) -> None:
    first, second = (AdapterScores(base, folder, folder.name) for folder in (run / PM, run / PM / SECOND))
    for scorer, folder in ((first, run / PM), (second, run / PM / SECOND)):
        expected = PreferenceModel(folder / "model").scores(TALKS)
        assert max(expected) - min(expected) > 0.2
        assert scorer.scores(TALKS) == pytest.approx(expected, abs=near["atol"] / 5)


def test_a_base_that_was_lent_rates_as_the_model_that_was_loaded_apart(
    near: dict[str, float], tiny: Path, run: Path
) -> None:
    job = job_of(run, tiny, rl_cai={"reward": "feedback"}, preference_model={})
    policy = reinforcement.load_policy(job)
    with (
        reinforcement.reward_function(job, policy) as lent_base,
        reinforcement.reward_function(job, None) as loaded,
    ):
        assert isinstance(loaded, FeedbackReward)
        assert not isinstance(lent_base, FeedbackReward)
        assert lent_base(TALKS[:2]) == pytest.approx(
            loaded(TALKS[:2]), abs=near["atol"] / 2
        )  # rounded elsewhere


# -- what is lent comes back as it was


def state(policy: Any) -> dict[str, Any]:
    return {
        "learns": {name: p.requires_grad for name, p in policy.named_parameters()},
        "active": policy.active_adapter,
        "mode": {module.training for module in policy.modules()},
    }


@pytest.mark.parametrize("training", [True, False])
def test_after_scoring_the_policy_learns_and_answers_as_before(
    run: Path, base: SharedBase, training: bool
) -> None:
    scorer, policy = AdapterScores(base, run / PM, "pm"), base.model
    policy.train(training)
    before, answers = state(policy), logits(policy)
    assert {name.split(".")[-2] for name, learns in before["learns"].items() if learns} == {"default"}
    scorer.scores(TALKS)
    assert state(policy) == before
    assert torch.equal(logits(policy), answers)
    with pytest.raises(KeyboardInterrupt), lent(policy, "pm"):
        assert not policy.training
        raise KeyboardInterrupt
    assert state(policy) == before


# -- trained


def reinforced(
    tiny: Path, run: Path, folder: Path, algorithm: AlgorithmName = "rloo", **more: Any
) -> Checkpoint:
    """Two epochs of two batches each."""
    folder.mkdir(exist_ok=True)
    policy = policy_on(tiny, run / SL_CAI, LORA)
    assert policy is not None
    asked = [Prompt.of((Message("user", f"Tell me {n}."),), "red_team", "test") for n in range(4)]
    how = changed(HOW, **LORA.model_dump(), algorithm=algorithm)
    callbacks = more.pop("callbacks", ())
    job = training_job(examples(asked), run / SL_CAI / "model", folder, how, base_name="sl-cai", **more)
    reward = AdapterScores(policy, run / PM, "pm").scores
    return reinforce(job, policy=policy, reward=reward, callbacks=callbacks)


def of(adapter: str, model: Any) -> dict[str, Tensor]:
    found = {name: p.detach().clone() for name, p in model.named_parameters() if f".{adapter}." in name}
    assert found
    return found


@each_algorithm
def test_only_the_policy_learns_and_the_reference_stays_sl_cai(
    tiny: Path, run: Path, tmp_path: Path, algorithm: AlgorithmName, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, seen = launch.train, []

    def looked_at(trainer: Any, *more: Any) -> None:
        before = {name: of(name, trainer.model) for name in ("default", "ref", "pm")}
        train(trainer, *more)
        for name in ("ref", "pm"):
            assert all(torch.equal(w, before[name][key]) for key, w in of(name, trainer.model).items())
        learned = of("default", trainer.model)
        assert any(not torch.equal(w, before["default"][key]) for key, w in learned.items())
        names = {id(p): name for name, p in trainer.model.named_parameters()}
        optimised = {names.get(id(p)) for group in trainer.optimizer.param_groups for p in group["params"]}
        assert optimised - {None} == learned.keys()  # PPO's value head is none of the model's
        for key, weight in before["ref"].items():
            assert torch.equal(weight, before["default"][key.replace(".ref.", ".default.")])
        seen.append(trainer)

    monkeypatch.setattr(launch, "train", looked_at)
    in_float32(monkeypatch)
    reinforced(tiny, run, tmp_path, algorithm)
    assert seen
    rows = logged(tmp_path)
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-3)  # sampled and computed again: rounded in two ways
    assert abs(rows[-1]["kl"]) > 1e-3


@each_algorithm
def test_a_killed_training_on_one_base_ends_at_the_weights_of_the_unbroken_one(
    tiny: Path, run: Path, tmp_path: Path, algorithm: AlgorithmName
) -> None:
    unbroken = reinforced(tiny, run, tmp_path / "unbroken", algorithm)
    with pytest.raises(KeyboardInterrupt):
        reinforced(tiny, run, tmp_path / "killed", algorithm, on_step=kill_at(3))
    steps: list[int] = []
    resumed = reinforced(tiny, run, tmp_path / "killed", algorithm, on_step=lambda done, _: steps.append(done))
    assert steps == [3, 4]
    assert resumed.digest == unbroken.digest
    assert logged(tmp_path / "killed") == logged(tmp_path / "unbroken")


def test_what_is_saved_is_a_whole_model_with_the_policys_adapter_and_no_other(
    near: dict[str, float], tiny: Path, run: Path, tmp_path: Path
) -> None:
    made = reinforced(tiny, run, tmp_path, callbacks=[Snapshots(tmp_path, 8, prompts_per_batch=2, passes=1)])
    assert (
        load_file(Path(made.path) / "model.safetensors").keys() == load_file(tiny / "model.safetensors").keys()
    )
    saved, sl_cai = logits(whole(Path(made.path))), logits(whole(run / SL_CAI / "model"))
    assert (saved - sl_cai).abs().max() > 1
    again = policy_on(tiny, tmp_path, LORA)
    assert again is not None
    torch.testing.assert_close(logits(again.model), saved, **near)
    torch.testing.assert_close(logits(whole(tmp_path / "snapshots" / "00000008")), saved, **near)


# -- in a run


def job_of(run: Path, tiny: Path, **changes: Any) -> Job:
    """After all stages but the last training."""
    models = {"pretrained": f"hf:{tiny}", "feedback": f"hf:{tiny}"} | changes.pop("models", {})
    rl = {"lora_rank": 2, "answers": 2, "batch_size": 4} | changes.pop("rl_cai", {})
    asked = {
        "models": models,
        "rl_cai": rl,
        "preference_model": {"second": True},
        "feedback": {"method": "likelihood"},
    }
    recipe = Recipe.model_validate(asked | changes)
    asked_for = {kind: load_prompts("built-in", kind) for kind in KINDS}
    return Job(Run(run), recipe, load_constitution("default"), asked_for, print)


def scorers(job: Job) -> list[type]:
    """The scores of the two preference models."""
    policy = reinforcement.load_policy(job)
    with reinforcement.reward_function(job, policy) as reward:
        return [found.__self__.__class__ for found in (reward, reinforcement.second_scores(job, policy))]


@pytest.mark.parametrize(
    ("changes", "gone", "used"),
    [
        ({}, None, AdapterScores),
        ({"rl_cai": {"lora_rank": 3}}, None, PreferenceModel),
        ({"rl_cai": {"lora_rank": None}}, None, PreferenceModel),
        ({"models": {"preference_model": "hf:another"}}, None, PreferenceModel),
        ({}, SL_CAI, PreferenceModel),
        ({}, PM, PreferenceModel),
    ],
    ids=["alike", "another rank", "no rank", "another base", "SL-CAI made long ago", "scores made long ago"],
)
def test_the_base_is_shared_where_all_three_were_made_of_it_alike(
    tiny: Path, run: Path, tmp_path: Path, changes: dict[str, Any], gone: str | None, used: type
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    for adapter in (folder / gone).rglob("adapter") if gone else ():
        shutil.rmtree(adapter)
    assert scorers(job_of(folder, tiny, **changes)) == [used, used]


def test_the_last_training_of_a_run_goes_on_with_sl_cais_adapter(
    tiny: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "outputs", lambda *_: {})
    rl = {"prompts": 2, "max_tokens": 4, "max_length": 512}
    reinforcement.rl_cai_model(job_of(shutil.copytree(run, tmp_path / "run"), tiny, rl_cai=rl))
    made = json.loads((tmp_path / "run" / reinforcement.STAGE / "adapter" / "adapter_config.json").read_text())
    assert made["base_model_name_or_path"] == f"folder:{tiny.name}"


def test_an_adapter_of_another_base_is_refused(run: Path, base: SharedBase, tmp_path: Path) -> None:
    folder = shutil.copytree(run / PM, tmp_path / "pm")
    weights = load_file(folder / "adapter" / WEIGHTS)
    torn = {name: w for name, w in weights.items() if "layers.1" not in name}
    assert HEAD in torn
    save_file(torn, folder / "adapter" / WEIGHTS)
    with pytest.raises(ModelError, match="does not fit the policy"):
        AdapterScores(base, folder, "pm")
