from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from constitutional_ai import machine
from constitutional_ai.errors import InputError
from constitutional_ai.rl_cai.preference_model.scorer import tokenizer_of
from constitutional_ai.training import launch, regression
from constitutional_ai.training.regression import (
    Collator,
    Regression,
    Target,
    begin_head,
    keep,
    predict,
    regress,
    ridge,
    scores,
)
from constitutional_ai.training.settings import Training
from tests.training.jobs import training_job


def targets(tokenizer: Any) -> list[Target]:
    """How harmful a text is said to be shows in its first word."""
    return [
        Target(tokenizer(f"{word} {'x' * (n * 7 % 23)}{n}.\n")["input_ids"], value)
        for n in range(12)
        for word, value in (("bread", 0.0), ("human", 4.0))
    ]


def model_of(base: Path) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)


def test_packed_and_padded_texts_get_the_same_numbers_and_gradients(tiny: Path) -> None:
    tokenizer, model = tokenizer_of(tiny), model_of(tiny)
    rows, found = targets(tokenizer)[:5], {}
    for packed in (True, False):
        model.zero_grad()
        batch = Collator(tokenizer.pad_token_id, packed)(rows)
        out = scores(model, batch)
        (out - batch["labels"]).square().mean().backward()
        found[packed] = out.detach(), model.model.layers[0].mlp.up_proj.weight.grad.clone()
    for a, b in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_the_number_is_the_mean_of_the_head_over_all_tokens(tiny: Path) -> None:
    tokenizer, model = tokenizer_of(tiny), model_of(tiny)
    rows = targets(tokenizer)[:3]
    expected = [
        float(model.score(model.model(torch.tensor([row.ids])).last_hidden_state).detach().mean())
        for row in rows
    ]
    assert scores(model, Collator(tokenizer.pad_token_id, False)(rows)).tolist() == pytest.approx(
        expected, abs=1e-4
    )


def test_the_upper_layers_can_be_cut_off(tiny: Path, tmp_path: Path) -> None:
    made = trained(tiny, tmp_path, depth=0.5, epochs=1)
    saved = AutoModelForSequenceClassification.from_pretrained(made.checkpoint.path)
    assert saved.config.num_hidden_layers == len(saved.model.layers) == 1
    with pytest.raises(InputError, match="depth=1"):
        keep(SimpleNamespace(config=None, base_model=None), 0.5)


def test_the_head_begins_at_ridge_regression_and_not_at_random(tiny: Path) -> None:
    tokenizer, model = tokenizer_of(tiny), model_of(tiny)
    rows, collator = targets(tokenizer), Collator(tokenizer.pad_token_id, True)
    assert error(predict(model, rows, collator), rows) > 4  # of values that lie 2 from their mean
    begin_head(model, rows, collator)
    assert error(predict(model, rows, collator), rows) < 1


def error(found: list[float], rows: list[Target]) -> float:
    return sum((a - row.value) ** 2 for a, row in zip(found, rows, strict=True)) / len(rows)


def test_ridge_takes_the_penalty_that_tells_left_out_rows_best() -> None:
    torch.manual_seed(0)
    x = torch.randn(12, 30, dtype=torch.double)
    y = x[:, 0] + 3

    def left_out_error(penalty: float) -> float:
        """The slow way: each row told by a regression on all others, under the same absolute penalty."""
        total, absolute = 0.0, penalty * float((x @ x.T).diagonal().mean()) / 12
        for i in range(12):
            rest = [j for j in range(12) if j != i]
            dual = torch.linalg.solve(
                x[rest] @ x[rest].T + absolute * torch.eye(11, dtype=torch.double), y[rest]
            )
            total += float(x[i] @ x[rest].T @ dual - y[i]) ** 2
        return total

    best = min(regression.RIDGE, key=left_out_error)
    absolute = best * float((x @ x.T).diagonal().mean()) / 12
    expected = torch.linalg.solve(x.T @ x + absolute * torch.eye(30, dtype=torch.double), x.T @ y)
    torch.testing.assert_close(ridge(x, y), expected, atol=1e-6, rtol=1e-6)


def trained(base: Path, folder: Path, **changes: Any) -> Regression:
    folder.mkdir(exist_ok=True)
    tokenizer, depth = tokenizer_of(base), changes.pop("depth", 1.0)
    settings = {"epochs": 3, "batch_size": 6, "learning_rate": 2e-3, "checkpoint_steps": 2, **changes}
    job = training_job(targets(tokenizer), base, folder, Training(**settings))
    return regress(job, tokenizer=tokenizer, depth=depth)


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 4}, {"micro_batch": 2}])
def test_a_number_is_learned_and_saved(tiny: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    made = trained(tiny, tmp_path, **changes)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 12 and sum(losses[-4:]) < sum(losses[:4])
    saved, info = AutoModelForSequenceClassification.from_pretrained(
        made.checkpoint.path, output_loading_info=True, dtype=torch.float32
    )
    assert not info["missing_keys"]
    tokenizer = tokenizer_of(made.checkpoint.path)
    again = predict(saved, targets(tokenizer)[:8], Collator(tokenizer.pad_token_id, True))
    assert again == pytest.approx(made.predicted, abs=0.25)  # bfloat16
    assert list((tmp_path / "model").glob("*.safetensors")) and not list((tmp_path / "model").rglob("*.bin"))


@pytest.mark.skipif(machine.best_dtype() != torch.bfloat16, reason="no bfloat16 here")
def test_what_is_saved_is_what_the_loss_saw(tiny: Path, tmp_path: Path) -> None:
    """Updates too small for bfloat16 never reached the loss, so they must not come back in the saved weights."""
    made = trained(tiny, tmp_path, epochs=1, learning_rate=1e-7)
    before, after = [
        AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.bfloat16, num_labels=1).model
        for path in (tiny, made.checkpoint.path)
    ]
    same = torch.cat([(a == b).flatten() for a, b in zip(before.parameters(), after.parameters(), strict=True)])
    assert same.float().mean() > 0.99  # rounded at random, about half


def test_micro_batches_change_the_memory_and_not_the_loss(tiny: Path, tmp_path: Path) -> None:
    whole, parts = [
        trained(tiny, tmp_path / name, epochs=1, **changes) and first_loss(tmp_path / name)
        for name, changes in (("whole", {}), ("parts", {"micro_batch": 2}))
    ]
    assert parts == pytest.approx(whole, rel=0.02)


def first_loss(folder: Path) -> float:
    loss: float = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    return loss


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    make_tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_tiny()
    whole = trained(base, tmp_path / "whole")

    class Killed(Exception): ...

    real, steps = launch.Metrics.on_step_end, []

    def dies(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        real(self, args, state, control, **more)
        steps.append(state.global_step)
        if state.global_step == 7:
            raise Killed

    monkeypatch.setattr(launch.Metrics, "on_step_end", dies)
    with pytest.raises(Killed):
        trained(base, tmp_path / "killed")
    monkeypatch.setattr(launch.Metrics, "on_step_end", real)
    resumed = trained(base, tmp_path / "killed")
    assert steps[-1] == 7
    assert resumed.checkpoint.digest == whole.checkpoint.digest
