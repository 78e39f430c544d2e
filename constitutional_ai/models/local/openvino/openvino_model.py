"""OpenVINO GenAI in this process: a fast engine for CPUs. Extra ``openvino``.

Completions come from its continuous batching with a cache of prefixes, and each request's own seed fixes its draws
(they are not those of other engines). It gives no log-probabilities of a prompt, so scores come from transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
import openvino_genai as genai
import torch
from safetensors import SafetensorError

from constitutional_ai import machine
from constitutional_ai.engine.open import round_to_int8
from constitutional_ai.engine.sampling import StoppingCriteria
from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.local.continuous import Continuous, Stepped
from constitutional_ai.models.local.exported import export_once, local_folder
from constitutional_ai.models.local.hugging_face import TransformersModel
from constitutional_ai.models.local.openvino.export_ir import FORM, settings, unsupported, write_ir
from constitutional_ai.models.local.tokens import Generation, Tokens, cannot_load
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.records import Completion

AT_ONCE = 64
"""Sequences in the engine at once."""
STEP_TOKENS = 2048
"""Tokens prefilled in one step. More would delay the sequences in decode."""
CACHE_SHARE, CACHE_GIGABYTES = 0.2, 4
"""Limits for keys and values: a share of this machine's memory, and at most so many GB."""


class OpenVinoModel:
    """Weights in a folder or on the hub, exported once. Raises ModelError when OpenVINO cannot run them."""

    int8 = False
    """Whether the export keeps weights in 8 bits."""

    def __init__(self, name: str, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """``dtype`` is float32 or bfloat16; None is the one in which this processor is fast."""
        self.name, self._path = name, path
        self._tokens = Tokens(name, path)
        if (why := unsupported(self._tokens.config)) is not None:
            raise ModelError(f"OpenVINO cannot run '{name}': {why}. Set engine=transformers.")
        self.format = self._tokens.format
        # OpenVINO's own default ignores ONEDNN_MAX_CPU_ISA: bfloat16 where every inference then raises.
        self._dtype = dtype or machine.best_dtype()
        paged = _Paged(_export(name, path, self.int8), settings(self._dtype), self._tokens)
        self._generations = Continuous(paged, tokens=lambda r: r.tokens, size=AT_ONCE)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        request = self._tokens.generation(context, sampling)
        completion = await self._generations.ask(request)
        if completion is None:
            raise RecordError(f"no room in OpenVINO's cache for {len(request.tokens)} tokens of context")
        return self._tokens.completion(request, completion)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        return await self._scorer.score(context, continuations)

    @cached_property
    def _scorer(self) -> TransformersModel:
        """The model in transformers, loaded at the first score: many models never need it."""
        scorer = _DequantisedModel if self.int8 else TransformersModel
        return scorer(self.name, self._path, dtype=self._dtype)


class Int8OpenVinoModel(OpenVinoModel):
    """The same with its weights in 8 bits. All else keeps its precision."""

    int8 = True


class _DequantisedModel(TransformersModel):
    """A model with the weights of the 8-bit export, so that one model both generates and scores."""

    def _load(self, path: str | Path, dtype: torch.dtype | str) -> Any:
        model = super()._load(path, dtype)
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                whole_FE, scales_F = round_to_int8(module.weight.detach().float())
                weight_FE = (whole_FE * scales_F[:, None]).to(module.weight.dtype)
                # A new parameter: the embedding may share the head's, and is not rounded.
                module.weight = torch.nn.Parameter(weight_FE, requires_grad=False)
        return model


def _export(name: str, path: str | Path, int8: bool) -> Path:
    try:
        source, form = local_folder(path), f"{FORM}-int8" if int8 else FORM
        return export_once(source, form, lambda folder: write_ir(name, source, folder, int8=int8))
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(name, error) from error


class _Running(NamedTuple):
    handle: Any
    max_tokens: int
    stopping: StoppingCriteria
    completion: list[int]


class _Paged:
    """The engine that ``Continuous`` keeps busy. A result is a completion's ids, or None when the cache had no room."""

    def __init__(self, folder: Path, properties: dict[str, str], tokens: Tokens) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.max_num_seqs = AT_ONCE
        scheduler.max_num_batched_tokens = STEP_TOKENS
        scheduler.cache_size = max(
            1, int(min(CACHE_GIGABYTES, CACHE_SHARE * machine.physical_memory() / 2**30))
        )
        self._pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
        self._tokens = tokens
        self._running: dict[int, _Running] = {}

    def add(self, number: int, request: Generation) -> None:
        ids = ov.Tensor(np.array([request.tokens], dtype=np.int64))
        handle = self._pipeline.add_request(number, ids, self._config(request.sampling))
        stopping = StoppingCriteria(self._tokens.tokenizer, self._tokens.ends, request.stop)
        self._running[number] = _Running(handle, request.sampling.max_tokens, stopping, [])

    def step(self) -> Stepped[list[int] | None]:
        self._pipeline.step()
        stepped: Stepped[list[int] | None] = Stepped([], [])
        for number, running in list(self._running.items()):
            ended = self._take_new(running)
            if running.completion:
                stepped.prefilled.append(number)
            if ended:
                stepped.done.append((number, running.completion))
            elif running.handle.get_status() != genai.GenerationStatus.RUNNING:
                stepped.done.append((number, None))
            else:
                continue
            self.drop(number)
        return stepped

    def drop(self, number: int) -> None:
        running = self._running.pop(number, None)
        if running is None:
            return
        running.handle.cancel()
        if not self._running and self._pipeline.has_non_finished_requests():
            self._pipeline.step()  # its blocks are free only after a step

    @staticmethod
    def _take_new(running: _Running) -> bool:
        """Append the new tokens; return whether the completion has ended."""
        while running.handle.can_read():
            for output in running.handle.read().values():
                for token in output.generated_ids:
                    running.completion.append(token)
                    if running.stopping(running.completion) or len(running.completion) == running.max_tokens:
                        return True
        return False

    def _config(self, sampling: Sampling) -> Any:
        config = genai.GenerationConfig()
        config.max_new_tokens = sampling.max_tokens
        if self._tokens.ends:
            config.set_eos_token_id(min(self._tokens.ends))
            config.stop_token_ids = self._tokens.ends
        config.do_sample = sampling.temperature > 0
        if config.do_sample:
            # Nothing is cut off: its own top-p is 1, and its top-k the whole vocabulary (SL-10).
            config.temperature = sampling.temperature
            config.rng_seed = sampling.seed % 2**32
        return config
