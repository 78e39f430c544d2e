"""The most that this machine can do, and the share of it that a workload reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from results import Row
from transformers import AutoConfig, AutoModelForCausalLM

from constitutional_ai import machine


class Work(NamedTuple):
    """The least work for a batch of sequences: what they share counts once."""

    body: int
    """Tokens through the layers."""
    head: int
    """Tokens through the projection to the vocabulary."""
    attended: float
    """Pairs of a token and one that it attends to."""
    steps: int
    """Decode steps, each of which reads all weights; 0 where nothing is generated."""

    @staticmethod
    def of(prompts: list[list[int]], shared: int, new: int, heads: int) -> Work:
        """Return the work for ``prompts`` that share ``shared`` first tokens, each continued by ``new`` tokens."""
        own = [len(prompt) - shared + new for prompt in prompts]
        attended = shared**2 / 2 + sum(((n + shared) ** 2 - shared**2) / 2 for n in own)
        return Work(shared + sum(own), heads, attended, new)


class Model(NamedTuple):
    """The size of a model."""

    body: int
    """Weights of the layers."""
    head: int
    """Weights of the projection to the vocabulary."""
    attention: int
    """Multiplications and additions for each attended pair."""

    @staticmethod
    def of(folder: str) -> Model:
        """Return the size of the model in ``folder``, from its configuration alone."""
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        head = model.get_output_embeddings().weight.numel()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        body = sum(p.numel() for p in model.model.layers.parameters())
        return Model(body, head, 4 * config.num_hidden_layers * config.num_attention_heads * size)


class Limits(NamedTuple):
    """The rates of this machine."""

    flops: float
    """See ``matrix_rate``."""
    bandwidth: float
    """Bytes per second read from memory, the best of ten."""

    @staticmethod
    def measured() -> Limits:
        """Measure both rates."""
        data = torch.ones(2**28, dtype=torch.int8, device=machine.device()).view(torch.int64)
        return Limits(matrix_rate(), data.nbytes / best_of_ten(lambda: int(data.sum())))

    def shares(self, name: str, work: Work, model: Model, seconds: float) -> list[Row]:
        """Return the shares of both rates that ``work`` in ``seconds`` reached."""
        flops = 2 * (model.body * work.body + model.head * work.head) + model.attention * work.attended
        unit = f"of {self.flops / 1e9:.0f} GFLOP/s"
        rows = [Row(f"{name}: share of the matrix rate", flops / seconds / self.flops, unit)]
        if work.steps:
            read = work.steps * (model.body + model.head) * machine.best_dtype().itemsize / seconds
            unit = f"of {self.bandwidth / 1e9:.0f} GB/s"
            rows.append(Row(f"{name}: share of the memory's rate, weights alone", read / self.bandwidth, unit))
        return rows


def matrix_rate() -> float:
    """Return the FLOP/s of a large matrix product in this machine's fast precision, the best of ten."""
    a, b = torch.randn(2, 4096, 4096, device=machine.device()).to(machine.best_dtype())
    return 2 * 4096**3 / best_of_ten(lambda: float((a @ b)[0, 0]))  # a number read: a GPU has finished then


def best_of_ten(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of ten runs."""
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
