"""What this machine could do at most, and what share of it a piece of work reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from results import Row
from transformers import AutoConfig, AutoModelForCausalLM

from constitutional_ai import machine


class Work(NamedTuple):
    """At the least: what rows share counts once."""

    body: int
    """Tokens through the layers."""
    head: int
    """Tokens through the projection to the vocabulary."""
    attended: float
    """Pairs of a token and one that it attends to."""
    steps: int
    """Each of which reads all weights; 0 where nothing is generated."""

    @staticmethod
    def of(rows: list[list[int]], shared: int, new: int, heads: int) -> Work:
        """``rows`` that share their first ``shared`` tokens; ``new`` more are generated of each."""
        own = [len(row) - shared + new for row in rows]
        attended = shared**2 / 2 + sum(((n + shared) ** 2 - shared**2) / 2 for n in own)
        return Work(shared + sum(own), heads, attended, new)


class Model(NamedTuple):
    body: int
    """Weights of the layers."""
    head: int
    """Weights of the projection to the vocabulary."""
    attention: int
    """Multiplications and additions for each attended pair."""

    @staticmethod
    def of(folder: str) -> Model:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        head = model.get_output_embeddings().weight.numel()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        body = sum(p.numel() for p in model.model.layers.parameters())
        return Model(body, head, 4 * config.num_hidden_layers * config.num_attention_heads * size)


class Limits(NamedTuple):
    flops: float
    """Of a large bfloat16 matrix product, a second; the best of ten."""
    bandwidth: float
    """Bytes a second read from memory, the best of ten."""

    @staticmethod
    def measured() -> Limits:
        a, b = torch.randn(2, 4096, 4096, device=machine.device()).to(machine.best_dtype())
        much = torch.ones(2**28, dtype=torch.int8, device=machine.device()).view(torch.int64)
        return Limits(
            2 * 4096**3 / best_of_ten(lambda: float((a @ b)[0, 0])),
            much.nbytes / best_of_ten(lambda: int(much.sum())),
        )

    def shares(self, name: str, work: Work, model: Model, seconds: float) -> list[Row]:
        flops = 2 * (model.body * work.body + model.head * work.head) + model.attention * work.attended
        unit = f"of {self.flops / 1e9:.0f} GFLOP/s"
        made = [Row(f"{name}: of the matrix rate", flops / seconds / self.flops, unit, "")]
        if work.steps:
            read = work.steps * (model.body + model.head) * machine.best_dtype().itemsize / seconds
            unit = f"of {self.bandwidth / 1e9:.0f} GB/s"
            made.append(Row(f"{name}: of the memory's rate, weights alone", read / self.bandwidth, unit, ""))
        return made


def best_of_ten(run: Callable[[], object]) -> float:
    """Seconds."""
    taken = []
    for _ in range(10):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return min(taken)
