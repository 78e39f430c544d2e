"""Snapshots of a policy in training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from constitutional_ai import machine
from constitutional_ai.training.callbacks import Snapshots


def policy_of(tiny: Path, lora: bool) -> Any:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    if not lora:
        return model
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return model


def told(callback: Snapshots, step: int, model: Any, tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    callback.on_step_end(None, SimpleNamespace(global_step=step), None, model=model, processing_class=tokenizer)


@pytest.mark.parametrize("lora", [True, False])
def test_a_snapshot_is_the_policy_of_its_step_and_leaves_the_training_as_it_was(
    tiny: Path, tmp_path: Path, lora: bool
) -> None:
    model = policy_of(tiny, lora)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told(Snapshots(tmp_path, 8, prompts_per_batch=8, passes=1), 1, model, tiny)
    after = model.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype
        for name, tensor in before.items()
    )
    saved = AutoModelForCausalLM.from_pretrained(
        tmp_path / "snapshots" / "00000008", dtype=machine.best_dtype()
    )
    ids = torch.arange(20)[None]
    with torch.no_grad():
        policy, whole, base = (m(ids).logits.float() for m in (model, saved, policy_of(tiny, False)))
    rounding = (policy - whole).abs().max()
    assert rounding < 0.1 * policy.abs().max()
    if lora:
        assert rounding < 0.2 * (policy - base).abs().max()
    assert AutoTokenizer.from_pretrained(tmp_path / "snapshots" / "00000008")


@pytest.mark.parametrize(
    ("every", "per_step", "steps"),
    [(8, 8, [1, 2, 3, 4]), (16, 8, [2, 4]), (10, 8, [2, 3, 4]), (3, 8, [1, 2, 3, 4])],
)
def test_snapshots_come_whenever_so_many_prompts_have_passed(
    tiny: Path, tmp_path: Path, every: int, per_step: int, steps: list[int]
) -> None:
    callback, model = Snapshots(tmp_path, every, prompts_per_batch=per_step, passes=1), policy_of(tiny, False)
    for step in range(1, 5):
        told(callback, step, model, tiny)
    found = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert found == [f"{step * per_step:08d}" for step in steps]


def test_a_batch_that_is_used_twice_counts_its_prompts_once(tiny: Path, tmp_path: Path) -> None:
    callback, model = Snapshots(tmp_path, 8, prompts_per_batch=8, passes=2), policy_of(tiny, False)
    for step in range(1, 6):
        told(callback, step, model, tiny)
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["00000008", "00000016"]


def test_what_little_was_learned_is_not_rounded_away(tiny: Path, tmp_path: Path) -> None:
    """One part in a thousand is less than half of the last digit of bfloat16."""
    model, base = policy_of(tiny, False), policy_of(tiny, False)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.001)
    told(Snapshots(tmp_path, 8, prompts_per_batch=8, passes=1), 1, model, tiny)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "snapshots" / "00000008", dtype=torch.float32)
    if machine.best_dtype() is not torch.bfloat16:
        return
    name = "model.layers.0.mlp.up_proj.weight"
    kept = saved.state_dict()[name].abs().sum() / base.state_dict()[name].abs().sum()
    assert float(kept) == pytest.approx(1.001, abs=2e-4)


def test_a_snapshot_made_again_after_a_kill_takes_the_place_of_the_first(tiny: Path, tmp_path: Path) -> None:
    callback, model = Snapshots(tmp_path, 8, prompts_per_batch=8, passes=1), policy_of(tiny, False)
    told(callback, 1, model, tiny)
    (tmp_path / "snapshots" / "00000016.part").mkdir()  # killed while it was written
    told(callback, 1, model, tiny)
    told(callback, 2, model, tiny)
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["00000008", "00000016"]
