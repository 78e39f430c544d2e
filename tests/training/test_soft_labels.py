from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.training import launch  # first: it turns telemetry off

from datasets import Dataset  # isort: skip
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # isort: skip
from trl import RewardConfig, RewardTrainer  # isort: skip

from constitutional_ai.training.settings import Training
from constitutional_ai.training.soft_labels import SoftLabelCollator, SoftLabelTrainer, soft_label_loss
from tests.training.jobs import training_job

TRAINING = Training(learning_rate=1e-2, batch_size=4, max_length=64)


def loss(a: list[float], b: list[float], p: list[float]) -> float:
    return float(soft_label_loss(torch.tensor(a), torch.tensor(b), torch.tensor(p)))


def test_the_loss_is_the_cross_entropy_with_the_soft_label() -> None:
    # a − b = ln 3, so σ = 3/4: −0.8·ln(3/4) − 0.2·ln(1/4) = 0.2301 + 0.2773
    assert loss([math.log(3)], [0.0], [0.8]) == pytest.approx(0.5074, abs=1e-4)
    # Two equal scores cost ln 2 whatever the label; the mean over pairs.
    assert loss([1.0, math.log(3)], [1.0, 0.0], [0.3, 0.8]) == pytest.approx(
        (math.log(2) + 0.5074) / 2, abs=1e-4
    )


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_the_loss_is_least_where_the_model_believes_the_label(p: float) -> None:
    differences = torch.linspace(-8, 8, 321)
    losses = [loss([float(d)], [0.0], [p]) for d in differences]
    best = torch.sigmoid(differences[losses.index(min(losses))])
    assert float(best) == pytest.approx(p, abs=0.01)


SCORES = st.floats(-30, 30, width=32)


@given(SCORES, SCORES, st.floats(0, 1, width=32))
def test_which_answer_is_called_a_does_not_matter(a: float, b: float, p: float) -> None:
    assert loss([a], [b], [p]) == pytest.approx(loss([b], [a], [1 - p]), rel=1e-4, abs=1e-5)


@pytest.fixture(scope="module")
def parts(tiny: Path) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(tiny)


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


def trainer_of(kind: type, parts: tuple[Any, Any], data: list[dict[str, Any]], **more: Any) -> Any:
    model, tokenizer = copy.deepcopy(parts[0]), parts[1]
    arguments = {**launch.arguments(training_job(settings=TRAINING)), "bf16": False, "save_strategy": "no"}
    return kind(
        model=model,
        args=RewardConfig(**arguments, max_length=64),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        **more,
    )


def soft(parts: tuple[Any, Any], *p_chosen: float, packed: bool = True) -> Any:
    collator = SoftLabelCollator(pad_token_id=parts[1].pad_token_id, packed=packed)
    return trainer_of(SoftLabelTrainer, parts, rows(*p_chosen), data_collator=collator)


@pytest.mark.parametrize("packed", [True, False])
def test_a_pair_and_its_mirror_image_give_one_gradient(parts: tuple[Any, Any], packed: bool) -> None:
    collator = SoftLabelCollator(pad_token_id=parts[1].pad_token_id, packed=packed)
    pairs = rows(0.2, 0.9, 0.5, 0.0)
    mirrored = [
        row | {"chosen": row["rejected"], "rejected": row["chosen"], "p_chosen": 1 - row["p_chosen"]}
        for row in pairs
    ]
    gradients = []
    for data in (pairs, mirrored):
        trainer = trainer_of(SoftLabelTrainer, parts, data, data_collator=collator)
        trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader()))).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-5)
    assert gradients[0].abs().max() > 1e-2


@pytest.mark.parametrize("packed", [True, False])
def test_at_certainty_the_loss_is_trls_own_and_so_is_what_it_logs(parts: tuple[Any, Any], packed: bool) -> None:
    hard_rows = [{k: v for k, v in row.items() if k != "p_chosen"} for row in rows(1, 1, 1, 1)]
    hard, ours = trainer_of(RewardTrainer, parts, hard_rows), soft(parts, 1, 1, 1, 1, packed=packed)
    gradients = []
    for trainer in (hard, ours):
        loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
        gradients.append(torch.cat([loss.detach()[None], gradient]))
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4)
    theirs, mine = hard._metrics["train"], ours._metrics["train"]
    for name in ("mean_reward", "min_reward", "max_reward", "margin", "accuracy"):
        assert mine[name] == pytest.approx(theirs[name], abs=1e-4)
    assert mine["agreement"] == theirs["accuracy"]


@pytest.mark.parametrize(("p", "prefers"), [(1.0, "chosen"), (0.0, "rejected")])
def test_a_few_steps_learn_the_side_that_the_label_names(
    parts: tuple[Any, Any], tmp_path: Path, p: float, prefers: str
) -> None:
    trainer = soft(parts, *[p] * 16)
    steps: list[tuple[int, int]] = []
    launch.train(trainer, training_job(folder=tmp_path, on_step=lambda *step: steps.append(step)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    model, tokenizer = trainer.model.eval(), parts[1]
    scores = {}
    for side in ("chosen", "rejected"):
        row = rows(p)[0]
        ids = tokenizer.apply_chat_template(row["prompt"] + row[side], return_tensors="pt", return_dict=True)
        with torch.no_grad():
            scores[side] = float(model(**ids).logits)
    assert max(scores, key=scores.__getitem__) == prefers
    logged = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(logged) == 4
    assert all('"loss"' in line and '"agreement"' in line for line in logged)


@pytest.mark.parametrize("packed", [True, False])
def test_a_text_that_ends_in_padding_is_refused(parts: tuple[Any, Any], packed: bool) -> None:
    pad = parts[1].pad_token_id
    collator = SoftLabelCollator(pad_token_id=pad, packed=packed)
    fine = {"chosen_ids": [5, 6], "rejected_ids": [5], "p_chosen": 0.3}
    assert collator([fine])["p_chosen"].tolist() == pytest.approx([0.3])
    for side in ("chosen_ids", "rejected_ids"):
        with pytest.raises(ValueError, match="ends in the padding token"):
            collator([{**fine, side: [5, pad]}])
