"""DPO on soft labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOTrainer

from constitutional_ai.rl_cai.reinforcement.dpo import optimise
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.training import launch
from constitutional_ai.training.soft_labels import SoftDPOTrainer
from tests.training.jobs import training_job

BETA = 0.1


def rows(*p_chosen: float) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": f"Question {n}?"}],
            "chosen": [{"role": "assistant", "content": "Yes, gladly."}],
            "rejected": [{"role": "assistant", "content": "No."}],
            "p_chosen": p,
        }
        for n, p in enumerate(p_chosen)
    ]


def optimised(tiny: Path, folder: Path, *p_chosen: float, **changes: Any) -> None:
    settings = RLTraining(
        algorithm="dpo", kl_weight=BETA, learning_rate=1e-2, batch_size=4, max_length=64, **changes
    )
    optimise(training_job(rows(*p_chosen), tiny, folder, settings))


@pytest.fixture
def trainer(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Before its first step."""
    caught: list[Any] = []
    monkeypatch.setattr(launch, "train", lambda trainer, *_: caught.append(trainer))
    monkeypatch.setattr(launch, "save", lambda *_, **__: None)
    optimised(tiny, tmp_path, 1.0, 0.8, 0.5, 0.0)
    return caught[0]


def test_the_loss_is_the_cross_entropy_with_each_pairs_own_label(trainer: Any) -> None:
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["p_chosen"].tolist()
    assert sorted(labels) == pytest.approx([0.0, 0.5, 0.8, 1.0])
    batch["ref_chosen_logps"] = batch["ref_chosen_logps"] + 1
    # Δ = −1, βΔ = −0.1: −p·ln σ(−0.1) − (1−p)·ln σ(0.1) = 0.7444·p + 0.6444·(1−p); the labels' mean is 0.575.
    expected = 0.74440 * 0.575 + 0.64440 * 0.425

    def loss(kind: type, inputs: dict[str, Any]) -> float:
        with torch.no_grad(), trainer.accelerator.autocast():
            return float(kind.compute_loss(trainer, trainer.model, dict(inputs)))

    assert loss(SoftDPOTrainer, batch) == pytest.approx(expected, abs=1e-3)
    certain = {**batch, "p_chosen": torch.ones(4)}
    theirs = {k: v for k, v in batch.items() if k != "p_chosen"}
    assert loss(SoftDPOTrainer, certain) == pytest.approx(loss(DPOTrainer, theirs), rel=1e-6)


@pytest.mark.parametrize(("p", "lora_rank"), [(1.0, None), (0.0, None), (1.0, 4)])
def test_a_few_steps_move_the_policy_to_the_side_that_the_label_names(
    tiny: Path, tmp_path: Path, p: float, lora_rank: int | None
) -> None:
    optimised(tiny, tmp_path, *[p] * 16, lora_rank=lora_rank)
    tokenizer = AutoTokenizer.from_pretrained(tiny)

    def margin(folder: Path) -> float:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        said = []
        for side in ("chosen", "rejected"):
            row = rows(p)[0]
            ids = tokenizer.apply_chat_template(
                row["prompt"] + row[side], return_tensors="pt", return_dict=True
            )
            prompt = len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"])
            with torch.no_grad():
                logp = model(**ids).logits.log_softmax(-1)[0, :-1].gather(1, ids["input_ids"][0, 1:, None])
            said.append(float(logp[prompt - 1 :].sum()))
        return said[0] - said[1]

    moved = margin(tmp_path / "model") - margin(tiny)
    assert moved > 1 if p == 1.0 else moved < -1
