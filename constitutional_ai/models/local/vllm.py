"""vLLM in this process: the fast engine on a GPU; there is a build for CPUs too. Extra ``vllm``.

Each request's own seed fixes its draws (they are not those of other engines). Scores are vLLM's log-probabilities of
prompt tokens, whole continuations.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # before the import: no telemetry
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import torch
from vllm import LLM, SamplingParams
from vllm.sampling_params import RequestOutputKind

from constitutional_ai.models.local.continuous import Continuous, Stepped
from constitutional_ai.models.local.exported import local_folder
from constitutional_ai.models.local.tokens import Generation, Tokens, cannot_load
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.records import Completion

AT_ONCE = 256
"""Requests in the engine; it has a schedule of its own within them."""
CPU_MEMORY = 0.4
"""Share of a machine's memory that vLLM may take where it has no GPU."""


class VllmModel:
    """A model in a folder or on the hub, as it is. Raises ModelError when vLLM cannot load it."""

    def __init__(self, name: str, path: str | Path, *, dtype: str = "auto") -> None:
        """``dtype`` is vLLM's: ``auto`` is that of the weights, but not for float32 ones."""
        self.name = name
        self._tokens = Tokens(name, path)
        self.format = self._tokens.format
        on_cpu = not torch.cuda.is_available()
        try:
            self._llm: Any = LLM(
                str(local_folder(path)),
                dtype=dtype,
                enable_prefix_caching=True,
                enforce_eager=on_cpu,  # compiling for a CPU takes minutes, and a compiler
                # Where a context is read in parts, a request with a seed kills vLLM 0.32 on a CPU.
                enable_chunked_prefill=False if on_cpu else None,
                # On a CPU it is a share of all memory; vLLM's own 0.92 fails unless the machine is empty.
                gpu_memory_utilization=CPU_MEMORY if on_cpu else 0.92,
                generation_config="vllm",  # nothing of the model's own: a repetition penalty is no plain sampling
                disable_log_stats=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise cannot_load(name, error) from error
        engine = _Stepping(self._llm.llm_engine)
        self._requests: Continuous[_Request, Any] = Continuous(engine, tokens=lambda r: r.tokens, size=AT_ONCE)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        request = self._tokens.generation(context, sampling)
        output = await self._requests.ask(_Request(request.tokens, _sampling(request, self._tokens.ends)))
        return self._tokens.completion(request, list(output.outputs[0].token_ids))

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        request = self._tokens.scoring(context, continuations)
        return await asyncio.gather(*[self._score(request.context, tokens) for tokens in request.continuations])

    async def _score(self, context: list[int], tokens: list[int]) -> float:
        for use_cache in (True, False):
            output = await self._requests.ask(_Request(context + tokens, _prompt_scores(use_cache)))
            # Tokens from the cache were not computed, and have no log-probability.
            if not use_cache or (output.num_cached_tokens or 0) < len(context):
                break
        logps = output.prompt_logprobs[-len(tokens) :]
        return float(sum(at[token].logprob for at, token in zip(logps, tokens, strict=True)))


def _sampling(request: Generation, ends: set[int]) -> SamplingParams:
    """Return vLLM's settings. Nothing is cut off: its own top-p is 1, and it has no top-k (SL-10)."""
    return SamplingParams(
        temperature=request.sampling.temperature,
        max_tokens=request.sampling.max_tokens,
        seed=request.sampling.seed,
        stop=[s for s in request.stop if s],
        stop_token_ids=sorted(ends),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _prompt_scores(use_cache: bool) -> SamplingParams:
    """Return settings for the log-probability of each prompt token. One more token must be generated."""
    return SamplingParams(
        temperature=0,
        max_tokens=1,
        prompt_logprobs=0,
        detokenize=False,
        skip_reading_prefix_cache=not use_cache,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


class _Request(NamedTuple):
    tokens: list[int]
    params: SamplingParams


class _Stepping:
    """The engine that ``Continuous`` keeps busy. Its results are vLLM's own."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._numbers: dict[str, int] = {}

    def add(self, number: int, request: _Request) -> None:
        self._engine.add_request(str(number), {"prompt_token_ids": request.tokens}, request.params)
        self._numbers[str(number)] = number

    def step(self) -> Stepped[Any]:
        done = [(int(output.request_id), output) for output in self._engine.step() if output.finished]
        for number, _ in done:
            del self._numbers[str(number)]
        # Its scheduler shares a prefix even within a step: nobody need wait.
        return Stepped([*self._numbers.values(), *(number for number, _ in done)], done)

    def drop(self, number: int) -> None:
        if self._numbers.pop(str(number), None) is not None:
            self._engine.abort_request([str(number)])
