"""Every training on a tiny model, in float32, by however many processes run this: one in the tests, two by torchrun.

Type: torchrun --nproc_per_node 2 -m tests.training.both_ways MODEL FOLDER
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from constitutional_ai import machine
from constitutional_ai.records import Conversation, Message, Prompt, as_messages
from constitutional_ai.rl_cai.preference_model.train import fit
from constitutional_ai.rl_cai.reinforcement.reinforce import examples, reinforce
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.sl_cai.finetune import finetune
from constitutional_ai.training import launch, processes
from constitutional_ai.training.settings import Training, TrainingJob
from tests.training.jobs import training_job

WORDS = ["bread", "salt", "water", "flour", "yeast", "oven", "bowl", "heat", "time", "cloth", "board", "knife"]


class Killed(Exception):
    """Stands for the signal that ends a process."""


def in_float32() -> None:
    """Compute exactly enough that losses of two ways can be compared."""
    given = launch.arguments
    launch.arguments = lambda job: given(job) | {"bf16": False}
    machine.best_dtype = lambda: torch.float32


def said(role: str, number: int) -> list[dict[str, Any]]:
    """A message of between two and nine words."""
    words = [WORDS[(number * 5 + i) % len(WORDS)] for i in range(2 + number % 8)]
    return as_messages((Message(role, " ".join(words)),))  # type: ignore[arg-type]


def dialogues() -> list[dict[str, Any]]:
    """Rows of which the last batch has one: the other process has none that counts."""
    return [
        {"id": str(n), "prompt": said("user", n), "completion": said("assistant", 3 * n + 1)} for n in range(13)
    ]


def pairs() -> list[dict[str, Any]]:
    """Rows of which the last batch has three: one process has one more that counts than the other."""
    return [
        {
            "prompt": said("user", n),
            "chosen": said("assistant", 3 * n),
            "rejected": said("assistant", 5 * n + 1),
            "p_chosen": 0.5 + n / 16,
        }
        for n in range(7)
    ]


def letters(talks: list[Conversation]) -> list[float | None]:
    """A reward of the answer's text; one answer in some cannot be scored."""
    sums = [sum(map(ord, talk[-1].content)) for talk in talks]
    return [None if total % 11 == 0 else total % 7 / 2 for total in sums]


def stop_at_second_step(done: int, total: int) -> None:
    if done == 2:
        raise Killed


def interrupted(job: TrainingJob[Training]) -> None:
    """Finetune up to the second step, as a killed process would; its checkpoint of the first is whole."""
    try:
        finetune(replace(job, on_step=stop_at_second_step))
    except Killed:
        return
    raise AssertionError("the training was not interrupted")


def train_all(model: Path, folder: Path) -> None:
    """Train in every way, each in a folder of its own."""
    in_float32()
    common: dict[str, Any] = {"learning_rate": 5e-3, "checkpoint_steps": 1}
    for name in ("sft", "pm", "rloo", "grpo", "ppo"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    sft = Training(batch_size=4, micro_batch=2, **common)
    job = training_job(dialogues(), model, folder / "sft", sft)
    interrupted(job)
    finetune(job)
    fit(
        training_job(
            pairs(), model, folder / "pm", Training(batch_size=4, micro_batch=2, lora_rank=2, **common)
        )
    )
    asked = examples(Prompt.of((Message("user", WORDS[n]),), "red_team", "test") for n in range(8))
    ways: dict[str, dict[str, Any]] = {
        "rloo": {"lora_rank": 2},
        "grpo": {"passes": 2, "micro_batch": 4},
        "ppo": {},
    }
    for algorithm, more in ways.items():
        how = RLTraining.model_validate(
            {"algorithm": algorithm, "batch_size": 8, "answers": 2, "max_tokens": 5, "kl_weight": 0.3}
            | common
            | more
        )
        reinforce(training_job(asked, model, folder / algorithm, how), reward=letters)


def logged(folder: Path) -> list[dict[str, float]]:
    """The rows of a training's log."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    train_all(Path(sys.argv[1]), Path(sys.argv[2]))
    processes.part_ways()
