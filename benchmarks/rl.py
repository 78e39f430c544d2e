"""Speed and memory of a step of RL beside TRL's own trainers. ``make bench``.

Each training runs in a process of its own, in turns: 32 answers of at most 40 tokens a step, 4 to a prompt, LoRA on the
embedded model, and a preference model of the same size with a random head as the reward. "TRL" is its trainer with its
defaults and ``use_cpu``; our own has the settings of the recipe ``demo``. TRL has no PPO: ours is compared with GRPO.
A small pair of trainings gets the same answers on both sides: their gradients must agree.

python benchmarks/rl.py [SIDE ALGORITHM STEPS SCRIPTED]   with arguments: one training; prints its figures as JSON
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from results import Row, ratio, report, under

from constitutional_ai.engine.cpu.process import tune_process
from constitutional_ai.engine.sampling import Sampler
from constitutional_ai.models.local.bundled import bundled_folder
from constitutional_ai.seeding import rng

QUICK = bool(os.environ.get("QUICK"))
STEPS, TIMES = (1, 1) if QUICK else (2, 3)
ANSWERS, BATCH, TOKENS, RANK = 4, 32, 40, 32
SCRIPTED = 8
"""Tokens of an answer that both sides are given."""
BARS = {"rloo": 4.0, "grpo": 3.0, "ppo": 3.0}
BASE = bundled_folder("smollm2-135m")
THEIRS = {"rloo": "RLOO", "grpo": "GRPO", "ppo": "GRPO"}


def preference_model(folder: Path) -> Path:
    """Save the embedded model with a random head for scores."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows(steps: int) -> list[dict[str, Any]]:
    from constitutional_ai.data.prompts import load_prompts
    from constitutional_ai.rl_cai.reinforcement.reinforce import examples

    return examples(load_prompts("built-in", "red_team").train[: steps * BATCH // ANSWERS])


def our_trainer(algorithm: str, steps: int, folder: Path, scores: Path, tokens: int) -> Any:
    from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
    from constitutional_ai.rl_cai.reinforcement.reinforce import reinforce
    from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
    from constitutional_ai.training import launch
    from constitutional_ai.training.settings import TrainingJob

    settings = RLTraining.model_validate(
        {
            "algorithm": algorithm,
            "answers": ANSWERS,
            "batch_size": BATCH,
            "micro_batch": 8,
            "lora_rank": RANK,
            "max_tokens": tokens,
            "kl_weight": 0.02,
            "temperature": 0.7,
        }
    )
    job = TrainingJob(
        rows=rows(steps), base=BASE, base_name="", folder=folder, settings=settings, seed=0, on_step=print_none
    )
    trainers: list[Any] = []
    with (
        mock.patch.object(launch, "train", side_effect=lambda trainer, _: trainers.append(trainer)),
        mock.patch.object(launch, "save"),
    ):
        reinforce(job, reward=PreferenceModel(scores).scores)
    return trainers[0]


def print_none(done: int, total: int) -> None:
    """Report nothing after a step."""


def trls_trainer(algorithm: str, steps: int, folder: Path, scores: Path, tokens: int) -> Any:
    import trl
    from datasets import Dataset
    from peft import LoraConfig

    name = THEIRS[algorithm]
    lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    config = getattr(trl, f"{name}Config")(
        output_dir=str(folder),
        use_cpu=True,
        bf16=bool(bf16),
        gradient_accumulation_steps=4,
        num_generations=ANSWERS,
        max_completion_length=tokens,
        temperature=0.7,
        beta=0.02,
        learning_rate=1e-5,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    dataset = Dataset.from_list([{"prompt": row["prompt"]} for row in rows(steps)])
    return getattr(trl, f"{name}Trainer")(
        model=str(BASE), reward_funcs=str(scores), args=config, train_dataset=dataset, peft_config=lora
    )


def script() -> torch.Tensor:
    """Return the tokens of 32 answers that both sides get: plain words of the vocabulary, with no end among them."""
    draws = rng(0, "scripted answers")
    return torch.tensor([[draws.randrange(1000, 20000) for _ in range(SCRIPTED)] for _ in range(BATCH)])


def train(side: str, algorithm: str, steps: int, scripted: bool) -> dict[str, float]:
    """Train by one side, and return its figures."""
    from transformers import LlamaForCausalLM

    make = our_trainer if side == "ours" else trls_trainer
    tokens = script()
    with tempfile.TemporaryDirectory() as temporary:
        scores = preference_model(Path(temporary) / "pm")
        trainer = make(algorithm, steps, Path(temporary) / "run", scores, SCRIPTED if scripted else TOKENS)
        trainer.args.save_strategy = "no"
        if scripted:
            Sampler.__call__ = lambda _, logits, of_rows, step: tokens[list(of_rows), step]
            LlamaForCausalLM.generate = lambda _, input_ids, **__: torch.cat([input_ids, tokens], 1)
        start = time.perf_counter()
        trainer.train()
        seconds = (time.perf_counter() - start) / steps
    logged = [row for row in trainer.state.log_history if "grad_norm" in row]
    return {
        "seconds": seconds,
        "gradient": logged[0]["grad_norm"],
        "length": sum(row["completions/mean_length"] for row in logged) / len(logged),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def in_a_process(side: str, algorithm: str, steps: int, scripted: bool = False) -> dict[str, float]:
    command = [sys.executable, __file__, side, algorithm, str(steps), str(int(scripted))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(side, algorithm, "scripted" if scripted else "", figures, flush=True)
    return figures


Runs = list[dict[str, float]]


def compared(algorithm: str, own: Runs, other: Runs) -> list[Row]:
    """Compare the trainings of both sides, pair by pair."""
    times = [theirs["seconds"] / ours["seconds"] for ours, theirs in zip(own, other, strict=True)]
    memory = [ours["memory"] / theirs["memory"] for ours, theirs in zip(own, other, strict=True)]
    name = algorithm.upper()
    middle = sorted(own, key=lambda run: run["seconds"])[len(own) // 2]
    return [
        Row(f"{name}: ours", middle["seconds"], f"s a step; answers of {middle['length']:.1f} tokens"),
        ratio(f"{name}: speed, times TRL's {THEIRS[algorithm]}", times, BARS[algorithm]),
        ratio(f"{name}: peak memory, times TRL's", memory),
    ]


def gradients(algorithm: str) -> Row:
    """Compare the gradients of both sides on the same answers."""
    own, other = (in_a_process(side, algorithm, 1, scripted=True)["gradient"] for side in ("ours", "TRL"))
    name = f"{algorithm.upper()}: gradient on the same answers, relative difference"
    return under(name, abs(own / other - 1), "", 0.01)


def main() -> None:
    sides = [("ours", "rloo"), ("TRL", "rloo"), ("ours", "grpo"), ("TRL", "grpo"), ("ours", "ppo")]
    runs: dict[tuple[str, str], Runs] = {each: [] for each in sides}
    for _, (side, algorithm) in product(range(TIMES), sides):
        runs[side, algorithm].append(in_a_process(side, algorithm, STEPS))
    rows = [
        row
        for algorithm in BARS
        for row in compared(algorithm, runs["ours", algorithm], runs["TRL", THEIRS[algorithm].lower()])
    ]
    report("rl", [*rows, gradients("rloo"), gradients("grpo")])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        tune_process()
        kind, algorithm, steps, scripted = sys.argv[1:]
        print(json.dumps(train(kind, algorithm, int(steps), scripted == "1")))
    else:
        main()
