"""Train a language model with a scalar head to predict a number, by L2 loss (EV-15).

The prediction is the head's mean over all tokens of the text, not the value at the last token as in a preference model,
because harm may be anywhere in a conversation. The head is initialised by ridge regression on the untrained model, not
at random: so the layers get useful gradients from the first step (Kumar et al. 2022, arXiv 2202.10054). A random
head would not reach the right scale within a few hundred rows. Training uses one process.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft import get_peft_model
from torch.nn.functional import mse_loss
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, set_seed

from constitutional_ai import machine
from constitutional_ai.errors import InputError
from constitutional_ai.records import Checkpoint
from constitutional_ai.training import launch, processes
from constitutional_ai.training.packing import causal_mask, hidden_states, packs
from constitutional_ai.training.settings import Training, TrainingJob

RIDGE = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Penalties of the ridge regression, in units of the features' mean square; the best on left-out rows is used."""


class Target(NamedTuple):
    """One row: a text and the number to predict."""

    ids: Sequence[int]
    """Tokens of the text, which does not end in padding."""
    value: float


class Regression(NamedTuple):
    """The result of a training."""

    checkpoint: Checkpoint
    predicted: list[float]
    """Predictions for the first rows, before the model was saved."""


def regress(job: TrainingJob[Training], *, tokenizer: Any, depth: float = 1.0, checked: int = 8) -> Regression:
    """Train the lower ``depth`` (a share) of the base's layers, with a scalar head, on ``Target`` rows, and save them.

    Returns the predictions for the first ``checked`` rows too. Raises InputError if the base's layers cannot be found,
    or in several processes.
    """
    if processes.count() > 1:
        raise InputError("a regression is trained by one process. Type the same command without torchrun.")
    set_seed(job.seed % 2**32)
    model = launch.load(job.base, job.settings, auto=AutoModelForSequenceClassification, num_labels=1)
    if depth < 1:
        keep(model, depth)
    collator = Collator(tokenizer.pad_token_id, packs(model.config))
    begin_head(model, job.rows, collator)
    if config := launch.lora(job.settings, "SEQ_CLS", modules_to_save=["score"]):
        model = get_peft_model(model, config)
    trainer = RegressionTrainer(
        model=model,
        args=TrainingArguments(**launch.arguments(job)),
        train_dataset=list(job.rows),
        data_collator=collator,
        processing_class=tokenizer,
    )
    launch.train(trainer, job)
    predicted = predict(trainer.model, job.rows[:checked], collator)
    checkpoint = launch.save(as_trained(trainer.model, job.settings), tokenizer, job)
    del trainer, model
    gc.collect()  # trainers hold their models in reference cycles
    return Regression(checkpoint, predicted)


def as_trained(model: Any, training: Training) -> Any:
    """Return the model with weights rounded to the nearest number of the fast dtype, as autocast did in every step.

    So the saved model is the one whose loss was measured. Stochastic rounding, as in other trainings, would keep small
    updates that the loss never saw, and moved the embedded model's ratings by 0.24 on average. A preference model does
    not mind such a shift: it cancels between the two scores of a pair.
    """
    return model.to(machine.best_dtype()) if training.lora_rank is None else model


def keep(model: Any, depth: float) -> None:
    """Remove the upper layers, which specialise in predicting the next token; at least one layer is kept.

    Raises InputError if the layers cannot be found.
    """
    config, layers = model.config, getattr(model.base_model, "layers", None)
    if layers is None:
        raise InputError(
            "the layers of this base model cannot be cut off. Pass --set depth=1 to keep them all."
        )
    kept = max(1, int(depth * len(layers)))
    model.base_model.layers, config.num_hidden_layers = layers[:kept], kept
    if types := getattr(config, "layer_types", None):
        config.layer_types = types[:kept]


class Collator:
    """A collator that pads the texts of a batch on the right, or, if ``packed``, puts them in one row."""

    def __init__(self, pad: int, packed: bool) -> None:
        self._pad, self._packed = pad, packed

    def __call__(self, rows: Sequence[Target]) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([len(row.ids) for row in rows])
        batch = {"labels": torch.tensor([row.value for row in rows], dtype=torch.float)}
        if self._packed:
            return batch | {
                "input_ids": torch.tensor([[token for row in rows for token in row.ids]]),
                "position_ids": torch.cat([torch.arange(n) for n in lengths.tolist()])[None],
                "lengths": lengths,
            }
        longest = int(lengths.max())
        padded = [[*row.ids, *[self._pad] * (longest - len(row.ids))] for row in rows]
        return batch | {
            "input_ids": torch.tensor(padded),
            "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
        }


def mean_hidden(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean of the hidden states over each text's tokens: (texts, D). ``model`` must not be a peft model."""
    if "lengths" in batch:
        lengths = batch["lengths"].tolist()
        inputs = {key: batch[key] for key in ("input_ids", "position_ids")}
        hidden_TD = hidden_states(model, [causal_mask(n) for n in lengths], **inputs)
        return torch.stack([text.float().mean(0) for text in torch.split(hidden_TD, lengths)])
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    hidden_BTD = model.base_model(**inputs, use_cache=False).last_hidden_state.float()
    shown_BT1 = batch["attention_mask"][:, :, None].to(hidden_BTD)
    mean_BD: torch.Tensor = (hidden_BTD * shown_BT1).sum(1) / shown_BT1.sum(1)
    return mean_BD


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def scores(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the prediction for each text: (texts,)."""
    inner = _inner(model)
    scored: torch.Tensor = inner.score(mean_hidden(inner, batch).to(inner.dtype))[:, 0].float()
    return scored


class RegressionTrainer(Trainer):  # type: ignore[misc]
    """Trainer with the squared error of ``scores``."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if "lengths" in inputs:
            model = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast():  # the trainer's own autocast is around the wrapper
            predicted = scores(model, inputs)
        squares = mse_loss(predicted, inputs["labels"], reduction="sum")
        # Every row counts alike, however the rows are split into micro-batches.
        return squares / (num_items_in_batch or len(predicted))


@torch.no_grad()
def features(model: Any, rows: Sequence[Target], collator: Collator) -> torch.Tensor:
    """Return the texts' mean hidden states: (rows, D), float32."""
    model.eval()
    device = next(model.parameters()).device
    hidden_RD = torch.zeros(len(rows), model.config.hidden_size)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    for start in range(0, len(rows), 8):
        part = order[start : start + 8]
        batch = {key: value.to(device) for key, value in collator([rows[i] for i in part]).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=machine.best_dtype() == torch.bfloat16):
            hidden_RD[part] = mean_hidden(model, batch).float().cpu()
    return hidden_RD


@torch.no_grad()
def predict(model: Any, rows: Sequence[Target], collator: Collator) -> list[float]:
    """Return the predictions for some rows, each computed as the saved model computes it."""
    inner = _inner(model)
    head = inner.score(features(inner, rows, collator).to(inner.device, inner.dtype))
    return [float(value) for value in head[:, 0].float()]


def begin_head(model: Any, rows: Sequence[Target], collator: Collator) -> None:
    """Set the head's weights by ridge regression of the rows' values on the model's hidden states."""
    hidden_RD = features(model, rows, collator).double()
    values_R = torch.tensor([row.value for row in rows], dtype=torch.double)
    weight = ridge(hidden_RD, values_R).to(model.score.weight)
    model.score.weight.data.copy_(weight[None])


def ridge(x_RD: torch.Tensor, y_R: torch.Tensor) -> torch.Tensor:
    """Return the weights (D,) of ridge regression with the penalty that predicts left-out rows best.

    No refitting is needed: with H the matrix that maps values to fitted values, the error of row i in a fit without it
    is (y − Hy)ᵢ / (1 − Hᵢᵢ).
    """
    gram_RR = x_RD @ x_RD.T
    scale = gram_RR.diagonal().mean()
    best, weights_D = torch.inf, torch.zeros_like(x_RD[0])
    for penalty in RIDGE:
        inverse = torch.linalg.inv(gram_RR + penalty * scale / len(y_R) * torch.eye(len(y_R)).to(gram_RR))
        dual = inverse @ y_R
        error = float((dual / inverse.diagonal()).square().mean())
        if error < best:
            best, weights_D = error, x_RD.T @ dual
    return weights_D
