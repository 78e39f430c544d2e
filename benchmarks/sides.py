"""The engines that are compared: our in-process one, plain transformers, and OpenVINO and vLLM where installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from workloads import BASE

from constitutional_ai import machine
from constitutional_ai.engine.open import tune_process
from constitutional_ai.models.local.hugging_face import HuggingFaceModel
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.rl_cai.feedback import questions

tune_process()
TIMES = 1 if os.environ.get("QUICK") else 3
NEW = 64
"""Tokens that are generated for each prompt."""
HERE = Path(__file__).parent
DRAWN = {"max_new_tokens": NEW, "do_sample": True, "temperature": 1.0, "top_k": 0}
GREEDY = {"max_new_tokens": NEW, "do_sample": False}


class Measured(NamedTuple):
    """One run of a workload."""

    seconds: float
    done: int
    """Requests, tokens or scores."""

    @property
    def rate(self) -> float:
        return self.done / self.seconds


def in_turns(*sides: Callable[[], Measured]) -> list[list[Measured]]:
    """Run all ``sides`` one after another, ``TIMES`` times, so that a change in the machine's speed meets all."""
    runs: list[list[Measured]] = [[] for _ in sides]
    for _ in range(TIMES):
        for measured, side in zip(runs, sides, strict=True):
            measured.append(side())
            print(measured[-1], f"{measured[-1].rate:.3g} per second", flush=True)
    return runs


# -- our engine


@cache
def _open(dtype: torch.dtype) -> HuggingFaceModel:
    return HuggingFaceModel("ours", BASE, dtype=dtype)


def ours(dtype: torch.dtype | None = None) -> Any:
    """Return our model in ``dtype``, or in this machine's fast precision."""
    return _open(dtype or machine.best_dtype())


def token_ids(contexts: list[Context]) -> list[list[int]]:
    """Return the prompts as token ids."""
    tokens = ours()._tokens
    return [tokens.generation(context, Sampling(max_tokens=NEW)).tokens for context in contexts]


def choices() -> list[list[int]]:
    """Return the token ids of the two choices of a feedback question."""
    continuations: list[list[int]] = ours()._tokens.scoring("", questions.CHOICES).continuations
    return continuations


def generated(contexts: list[Context], model: Any = None, new: int = NEW) -> list[Any]:
    """Return a completion of ``new`` tokens for each context, at temperature 1, all requested at once."""
    model = model or ours()

    async def together() -> list[Any]:
        sampling = [Sampling(max_tokens=new, seed=seed) for seed in range(len(contexts))]
        return await asyncio.gather(*map(model.generate, contexts, sampling))

    return asyncio.run(together())


def scored(contexts: list[Context], model: Any = None) -> list[list[float]]:
    """Return the log-probabilities of the two choices after each context, all requested at once."""
    model = model or ours()

    async def together() -> list[list[float]]:
        return await asyncio.gather(*[model.score(context, questions.CHOICES) for context in contexts])

    return asyncio.run(together())


def cold(run: Callable[[], int], model: Any = None) -> Measured:
    """Measure a run whose model keeps no prefix and no session of an earlier one."""
    (model or ours())._engine.reader.forget()
    return warm(run)


def warm(run: Callable[[], int]) -> Measured:
    """Measure a run; it may use what earlier ones left in the KV cache."""
    start = time.perf_counter()
    done = run()
    return Measured(time.perf_counter() - start, done)


# -- the other engines


@cache
def _plain_process(dtype: torch.dtype) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "plain_workload.py"), str(BASE), str(dtype).removeprefix("torch.")]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def plain(
    prompts: list[list[int]], dtype: torch.dtype | None = None, **request: Any
) -> tuple[float, list[Any]]:
    """Return seconds, and completions or scores, of plain transformers: see ``plain_workload.py``."""
    process = _plain_process(dtype or machine.best_dtype())
    assert process.stdin and process.stdout
    print(json.dumps({"prompts": prompts, **request}), file=process.stdin, flush=True)
    reply = json.loads(process.stdout.readline())
    return reply["seconds"], reply["results"]


def on_openvino(run: Callable[[Any], int]) -> Measured:
    """Measure a run of OpenVINO with the same weights, loaded anew: its prefix cache then holds nothing."""
    from constitutional_ai.models.local.openvino.openvino_model import OpenVinoModel

    model = OpenVinoModel("openvino", BASE)
    return warm(partial(run, model))


def has_openvino() -> bool:
    """Return whether OpenVINO is installed; print that it is not."""
    there = importlib.util.find_spec("openvino_genai") is not None
    if not there:
        print("OpenVINO is not measured. Type: pip install '.[openvino]'")
    return there


def vllm(prompts: list[list[int]]) -> dict[str, Any] | None:
    """Return the times of vLLM, or None where it failed, with its reason printed: see ``vllm_workload.py``."""
    request = json.dumps({"model": str(BASE), "prompts": prompts, "max_tokens": NEW, "temperature": 1.0})
    command = [os.environ["CAI_VLLM_PYTHON"], str(HERE / "vllm_workload.py")]
    env = {**os.environ, "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}  # it would keep one core for its own bookkeeping
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, text=True, env=env)
    return json.loads(done.stdout) if done.returncode == 0 else None
