"""OpenVINO GenAI in this process: the fast engine on a CPU. Extra ``openvino``.

Answers come from its continuous batching with a cache of prefixes, and each request's own seed fixes its draws (they
are not those of the transformers backend). It reports nothing about what it reads, so scores come from the same
exported model, run by OpenVINO itself (``openvino_scores.py``).
"""

from __future__ import annotations

import constitutional_ai.models.local.openvino.quiet  # isort: skip  # noqa: F401

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
import openvino_genai as genai
from safetensors import SafetensorError

from constitutional_ai import machine
from constitutional_ai.engine.decode_loop import Ending
from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.batching import Batch, Batcher
from constitutional_ai.models.local.continuous import Continuous, Stepped
from constitutional_ai.models.local.exported import exported, local_folder
from constitutional_ai.models.local.openvino.export_ir import FORM, unsupported, write_ir
from constitutional_ai.models.local.openvino.scores import Scores, precisions
from constitutional_ai.models.local.tokens import Generation, Scoring, Tokens, cannot_load
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.records import Completion

AT_ONCE = 64
"""Sequences in the engine."""
STEP_TOKENS = 2048
"""Read in one step. More would keep those that answer waiting."""
CACHE_SHARE, CACHE_GIGABYTES = 0.2, 4
"""Of this machine's memory, and at most, for keys and values."""
SCORE_BATCH, SCORE_TOKENS = 16, 32_768


class OpenVinoModel:
    """Weights in a folder or on the hub, exported once. Raises ModelError when OpenVINO cannot run them."""

    int8 = False
    """Whether the export keeps weights in 8 bits."""

    def __init__(self, name: str, path: str | Path, *, precision: str | None = None) -> None:
        """``precision`` is ``f32`` or ``bf16``; None takes the one in which this processor is fast."""
        self.name = name
        self._tokens = Tokens(name, path)
        if (why := unsupported(self._tokens.config)) is not None:
            raise ModelError(f"OpenVINO cannot run '{name}': {why}. Set engine=transformers.")
        self.format = self._tokens.format
        folder = _exported(name, path, self.int8)
        self._generations = Continuous(
            _Paged(folder, precisions(precision), self._tokens), tokens=lambda r: r.tokens, size=AT_ONCE
        )
        self._scorings = Batcher(
            _Scorer(folder, precision),
            size=SCORE_BATCH,
            key=lambda r: 0,
            length=lambda r: len(r.continuations) * (len(r.context) + max(map(len, r.continuations))),
            begins=lambda r: r.context,
            padded=SCORE_TOKENS,
        )

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        request = self._tokens.generation(context, sampling)
        said = await self._generations.ask(request)
        if said is None:
            raise RecordError(f"no room in OpenVINO's cache for {len(request.tokens)} tokens of context")
        return self._tokens.completion(request, said)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        return await self._scorings.ask(self._tokens.scoring(context, continuations))


class Int8OpenVinoModel(OpenVinoModel):
    """With its weights in 8 bits, and everything else in the precision asked for."""

    int8 = True


def _exported(name: str, path: str | Path, int8: bool) -> Path:
    try:
        source, form = local_folder(path), f"{FORM}-int8" if int8 else FORM
        return exported(source, form, lambda folder: write_ir(name, source, folder, int8=int8))
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(name, error) from error


class _Scorer:
    """Loads the model a second time when a first score is asked; many models are never asked for one."""

    def __init__(self, folder: Path, precision: str | None) -> None:
        self._folder, self._precision = folder, precision
        self._scores: Scores | None = None

    def __call__(self, batch: Batch[Scoring, list[float]]) -> None:
        if self._scores is None:
            self._scores = Scores(self._folder, self._precision)
        requests = batch.requests
        scores = self._scores.score([r.context for r in requests], [r.continuations for r in requests])
        batch.answer_all(scores)


class _Running(NamedTuple):
    handle: Any
    most: int
    ending: Ending
    said: list[int]


class _Paged:
    """The engine that ``Continuous`` keeps busy. A result is what was said, or None when there was no room for it."""

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
        ending = Ending(self._tokens.tokenizer, self._tokens.ends, request.stop)
        self._running[number] = _Running(handle, request.sampling.max_tokens, ending, [])

    def step(self) -> Stepped[list[int] | None]:
        self._pipeline.step()
        stepped: Stepped[list[int] | None] = Stepped([], [])
        for number, running in list(self._running.items()):
            ended = self._read_on(running)
            if running.said:
                stepped.read.append(number)
            if ended:
                stepped.done.append((number, running.said))
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
    def _read_on(running: _Running) -> bool:
        """Takes what is new, and says whether it came to an end."""
        while running.handle.can_read():
            for output in running.handle.read().values():
                for token in output.generated_ids:
                    running.said.append(token)
                    if running.ending(running.said) or len(running.said) == running.most:
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
