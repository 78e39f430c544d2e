"""The sides of the engines' benchmark: our in-process backend, plain transformers, and vLLM where it is installed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from workloads import BASE

from constitutional_ai import machine
from constitutional_ai.engine.open import tune_process
from constitutional_ai.models.local.hugging_face import HuggingFaceModel
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.rl_cai.feedback import questions as feedback_requests

tune_process()
NEW = 64
HERE = Path(__file__).parent
DRAWN = {"max_new_tokens": NEW, "do_sample": True, "temperature": 1.0, "top_k": 0}
GREEDY = {"max_new_tokens": NEW, "do_sample": False}


class Measured(NamedTuple):
    seconds: float
    done: int
    """Requests, tokens or scores."""

    @property
    def rate(self) -> float:
        return self.done / self.seconds


# -- ours


@cache
def ours(dtype: torch.dtype) -> Any:
    return HuggingFaceModel("ours", BASE, dtype=dtype)


def token_ids(contexts: list[Context]) -> list[list[int]]:
    tokens = ours(machine.best_dtype())._tokens
    return [tokens.generation(context, Sampling(max_tokens=NEW)).tokens for context in contexts]


def choices() -> list[list[int]]:
    tokens = ours(machine.best_dtype())._tokens
    found: list[list[int]] = tokens.scoring("", feedback_requests.CHOICES).continuations
    return found


def generated(contexts: list[Context], model: Any = None) -> list[Any]:
    model = model or ours(machine.best_dtype())

    async def together() -> list[Any]:
        how = [Sampling(max_tokens=NEW, seed=seed) for seed in range(len(contexts))]
        return await asyncio.gather(*map(model.generate, contexts, how))

    return asyncio.run(together())


def scored(contexts: list[Context], dtype: torch.dtype, model: Any = None) -> list[list[float]]:
    model = model or ours(dtype)

    async def together() -> list[list[float]]:
        return await asyncio.gather(*[model.score(c, feedback_requests.CHOICES) for c in contexts])

    return asyncio.run(together())


def cold(run: Callable[[], int], model: Any = None) -> Measured:
    """As if no beginning and no row were known yet."""
    (model or ours(machine.best_dtype()))._engine.forget()
    return warm(run)


def warm(run: Callable[[], int]) -> Measured:
    began = time.perf_counter()
    done = run()
    return Measured(time.perf_counter() - began, done)


# -- theirs


@cache
def _plain(dtype: torch.dtype) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "plain_workload.py"), str(BASE), str(dtype).removeprefix("torch.")]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def plain(rows: list[list[int]], dtype: torch.dtype | None = None, **asked: Any) -> tuple[float, list[Any]]:
    """Seconds, and what was said or scored: see ``plain_workload.py``."""
    process = _plain(dtype or machine.best_dtype())
    assert process.stdin and process.stdout
    print(json.dumps({"rows": rows, **asked}), file=process.stdin, flush=True)
    answer = json.loads(process.stdout.readline())
    return answer["seconds"], answer["made"]


def vllm(rows: list[list[int]]) -> dict[str, Any] | None:
    """None where it did not run; why is printed then. See ``vllm_workload.py``."""
    asked = json.dumps({"model": str(BASE), "prompts": rows, "max_tokens": NEW, "temperature": 1.0})
    command = [os.environ["CAI_VLLM_PYTHON"], str(HERE / "vllm_workload.py")]
    both_cores = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}  # it would leave one to its own bookkeeping
    ran = subprocess.run(
        command, input=asked, stdout=subprocess.PIPE, text=True, env={**os.environ, **both_cores}
    )
    return json.loads(ran.stdout) if ran.returncode == 0 else None
