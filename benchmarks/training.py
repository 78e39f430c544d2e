"""Speed of finetuning and of the preference model's training, beside TRL's own trainers. ``make bench``.

All train on the same rows with the same optimiser and seed, in turns and in one process, so that a change in the
machine's speed meets all of them. Tokens of the data count (a pair is two texts), padding does not. "Documented" is TRL
with its defaults and ``use_cpu``; "tuned" is TRL without activation checkpointing and with texts of similar length in a
batch. Expect other ratios on other rows, and on a machine without bfloat16.

python benchmarks/training.py [PAIRS]   PAIRS: a file of judged pairs, such as hh-rlhf's; without it, the project's own
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from limits import matrix_rate
from results import Row, ratio, report, under

from constitutional_ai.models.local.bundled import bundled_folder
from constitutional_ai.rl_cai.preference_model.train import length_of_longer_side, train_preference_model
from constitutional_ai.rl_cai.preference_model.training_pairs import helpfulness
from constitutional_ai.sl_cai.finetune import finetune
from constitutional_ai.training import launch  # before TRL: it silences its telemetry
from constitutional_ai.training.datasets import load_tokenizer, within
from constitutional_ai.training.packing import parts
from constitutional_ai.training.settings import Training, TrainingJob

QUICK = bool(os.environ.get("QUICK"))
STEPS, TIMES = (2, 1) if QUICK else (4, 3)
BASE = bundled_folder("smollm2-135m")
WEIGHTS = {"all weights": None, "LoRA": 32}
SIDES = "ours", "documented", "tuned"


class Measured(NamedTuple):
    """One training."""

    seconds: float
    loss: float


class Ready(Exception):
    """Raised to stop a stage when its trainer is ready; it holds the trainer."""


def job(rows: list[dict[str, Any]], how: Training, folder: Path) -> TrainingJob[Training]:
    return TrainingJob(
        rows=rows,
        base=BASE,
        base_name="",
        folder=folder,
        settings=how,
        seed=0,
        on_step=lambda done, total: None,
    )


def ours(stage: Callable[..., Any], rows: list[dict[str, Any]], how: Training, folder: Path) -> Any:
    with mock.patch.object(
        launch, "train", side_effect=lambda trainer, *_: (_ for _ in ()).throw(Ready(trainer))
    ):
        try:
            stage(job(rows, how, folder))
        except Ready as ready:
            return ready.args[0]


def trls(kind: str, rows: list[dict[str, Any]], how: Training, folder: Path, tuned: bool) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    trainer, config, columns, task = {
        "SFT": (SFTTrainer, SFTConfig, ("prompt", "completion"), "CAUSAL_LM"),
        "PM": (RewardTrainer, RewardConfig, ("prompt", "chosen", "rejected"), "SEQ_CLS"),
    }[kind]
    same = launch.arguments(job(rows, how, folder))
    names = "output_dir learning_rate lr_scheduler_type per_device_train_batch_size num_train_epochs seed bf16"
    given = {name: same[name] for name in names.split()}
    if tuned:
        given |= {"activation_checkpointing": False, "train_sampling_strategy": "group_by_length"}
        given |= {"remove_unused_columns": False}  # the length is in a column of its own
    return trainer(
        model=str(BASE),
        args=config(
            **given,
            use_cpu=True,
            max_length=how.max_length,
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{k: row[k] for k in (*columns, "length")} for row in rows]),
        processing_class=load_tokenizer(BASE),
        peft_config=launch.lora(how, task, **({"modules_to_save": ["score"]} if kind == "PM" else {})),
    )


def measure(make: Callable[[Path], Any]) -> Measured:
    """Train with the trainer that ``make`` returns for a folder."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(Path(folder))
        trainer.args.save_strategy = "no"
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    del trainer
    gc.collect()
    return Measured(seconds, statistics.fmean(losses))


class Work(NamedTuple):
    """The least work of a training of one epoch: what the two sides of a pair share counts once."""

    real: int
    """Tokens of the data."""
    body: int
    """Tokens through the layers."""
    head: int
    """Tokens through the projection to the vocabulary."""


def work(kind: str, rows: list[dict[str, Any]]) -> Work:
    """Return the work of training on ``rows``."""
    tokenizer = load_tokenizer(BASE)

    def ids(row: dict[str, Any], side: str) -> list[int]:
        tokens: list[int] = tokenizer.apply_chat_template(row["prompt"] + row[side])["input_ids"]
        return tokens

    if kind == "PM":
        pairs = [(ids(row, "chosen"), ids(row, "rejected")) for row in rows]
        return Work(sum(len(a) + len(b) for a, b in pairs), sum(sum(parts(a, b)) for a, b in pairs), 0)
    prompts = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"] for row in rows
    ]
    total = sum(len(ids(row, "completion")) for row in rows)
    return Work(total, total, total - sum(map(len, prompts)))


def flops(how: Training, work: Work) -> float:
    """Return the FLOPs: for each weight and token 2 forwards, 2 backwards, and 2 more if the weight is trained."""
    model = launch.load(BASE, how)
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.parameters()) - head  # the embedding is the projection
    return (6 if how.lora_rank is None else 4) * (body * work.body + head * work.head)


def compared(kind: str, weights: str, rows: list[dict[str, Any]], rate: float) -> list[Row]:
    """Compare one kind of training; ``rate`` is the machine's matrix rate in FLOP/s."""
    how = Training(batch_size=8, max_length=512, lora_rank=WEIGHTS[weights])
    stage = finetune if kind == "SFT" else train_preference_model
    trainers = {
        "ours": partial(ours, stage, rows, how),
        "documented": partial(trls, kind, rows, how, tuned=False),
        "tuned": partial(trls, kind, rows, how, tuned=True),
    }
    runs = {side: [] for side in SIDES}
    for _, side in product(range(TIMES), SIDES):
        runs[side].append(measure(trainers[side]))
        print(kind, weights, side, runs[side][-1], flush=True)
    whole, name = work(kind, rows), f"{kind}, {weights}"
    seconds = statistics.median(run.seconds for run in runs["ours"])
    share = flops(how, whole) / seconds / rate
    losses = {side: statistics.fmean(run.loss for run in runs[side]) for side in SIDES}
    difference = abs(losses["ours"] / losses["documented"] - 1)
    return [
        Row(f"{name}: ours", whole.real / seconds, "tokens/s without padding"),
        *[faster(name, side, runs) for side in SIDES[1:]],
        Row(f"{name}: share of the matrix rate", share, f"of {rate / 1e9:.0f} GFLOP/s"),
        under(f"{name}: loss, relative difference from documented TRL's", difference, "", 0.01),
    ]


def faster(name: str, side: str, runs: dict[str, list[Measured]]) -> Row:
    ratios = [theirs.seconds / own.seconds for own, theirs in zip(runs["ours"], runs[side], strict=True)]
    return ratio(f"{name}: speed, times TRL's, {side}", ratios, 1.5)


def main() -> None:
    pairs = helpfulness(sys.argv[1] if len(sys.argv) > 1 else "built-in", None, seed=0).rows
    kept, _ = within(pairs[: 20 * STEPS], BASE, 512)
    rows = [
        row | {"completion": row["chosen"], "length": length_of_longer_side(row)} for row in kept[: 8 * STEPS]
    ]
    rate = matrix_rate()
    results = [compared(kind, weights, rows, rate) for weights, kind in product(WEIGHTS, ("SFT", "PM"))]
    report("training", [row for result in results for row in result])


if __name__ == "__main__":
    main()
