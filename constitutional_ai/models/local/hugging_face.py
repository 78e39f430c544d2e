"""transformers in this process: the reference backend, for CPU and GPU.

Draws are fixed by each request's own seed (inverse transform sampling), so an answer does not depend on what else is
in its batch, save for rounding: in bfloat16 a batch of another shape can round a logit differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GenerationConfig

from constitutional_ai import machine
from constitutional_ai.engine.attention import OfModules
from constitutional_ai.engine.cpu import decoder
from constitutional_ai.engine.cpu.decoder import Decoder
from constitutional_ai.engine.cpu.kernels import Fused, fused
from constitutional_ai.engine.cpu.memory import huge_pages
from constitutional_ai.engine.cpu.threads import all_threads
from constitutional_ai.engine.decode_loop import Decoding
from constitutional_ai.engine.prefixes import takes
from constitutional_ai.engine.row_engine import SharedEngine
from constitutional_ai.errors import ModelError
from constitutional_ai.models.batching import Batch, Batcher
from constitutional_ai.models.local.padded import PaddedEngine
from constitutional_ai.models.local.tokens import Generation, Scoring, Tokens, cannot_load
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.records import Completion

GENERATE_BATCH, SCORE_BATCH = 128, 64
BATCH_TOKENS = 65_536
"""Of a batch, padding included. One long text would else make 63 short ones as long, and fill the memory."""

ELSE = "engine=openvino-int8, or engine=transformers"


class HuggingFaceModel:
    """A causal language model in a folder of safetensors, or on the hub. No remote code, no pickle."""

    int8 = False
    """Whether its weights are kept in 8 bits."""

    def __init__(
        self, name: str, path: str | Path, *, dtype: torch.dtype | None = None, model: Any = None
    ) -> None:
        """``model`` is that of ``path``, where it is in memory already. It is then only fit to ``score``."""
        self.name = name
        self._tokens = Tokens(name, path)
        self.format = self._tokens.format
        self._engine = self._engine_of(model, fixed=False) if model is not None else self._loaded(path, dtype)
        self._generations: Batcher[Generation, Completion] = Batcher(
            self._generate,
            size=GENERATE_BATCH,
            key=lambda r: (r.sampling.temperature, r.sampling.max_tokens, r.stop),
            length=lambda r: len(r.tokens) + r.sampling.max_tokens,
            begins=lambda r: r.tokens if self._engine.shares else (),
            steps=lambda r: r.sampling.max_tokens,
            padded=BATCH_TOKENS,
        )
        self._scorings: Batcher[Scoring, list[float]] = Batcher(
            self._score,
            size=SCORE_BATCH,
            key=lambda r: 0,
            length=lambda r: self._engine.tokens_to_score(*r),
            begins=lambda r: r.context if self._engine.shares else (),
            padded=BATCH_TOKENS,
        )

    def _loaded(self, path: str | Path, dtype: torch.dtype | None) -> PaddedEngine | SharedEngine:
        return self._engine_of(self._read(path, dtype or machine.best_dtype()).to(machine.device()), fixed=True)

    def _read(self, path: str | Path, dtype: torch.dtype | str) -> Any:
        huge_pages()
        try:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True)
        except (OSError, ValueError, SafetensorError) as error:
            raise cannot_load(self.name, error) from error
        # Nothing else of the model's own settings: a repetition penalty is no plain sampling (SL-10).
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(self._tokens.ends), pad_token_id=self._tokens.tokenizer.pad_token_id
        )
        return model

    def _engine_of(self, model: Any, fixed: bool) -> PaddedEngine | SharedEngine:
        """``fixed``: its weights stay as they are."""
        model.eval()
        tokenizer, ends = self._tokens.tokenizer, self._tokens.ends
        if not takes(model):
            return PaddedEngine(model, tokenizer, ends)
        forward = Decoder(model) if fixed and decoder.takes(model) else OfModules(model)
        return SharedEngine(forward, tokenizer, ends, keep=fixed)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        return await self._generations.ask(self._tokens.generation(context, sampling))

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        return await self._scorings.ask(self._tokens.scoring(context, continuations))

    def _generate(self, batch: Batch[Generation, Completion]) -> None:
        requests, arrivals = batch.requests, _Arrivals(batch, self._tokens)
        sampling, stop = requests[0].sampling, requests[0].stop
        seeds = [r.sampling.seed for r in requests]
        how = Decoding(seeds, sampling.temperature, sampling.max_tokens, stop)
        with all_threads():
            said = self._engine.generate([r.tokens for r in requests], how, batch.cancelled, arrivals)
        for number, tokens in enumerate(said):
            if number not in batch.answered:
                arrivals.said(number, tokens)

    def _score(self, batch: Batch[Scoring, list[float]]) -> None:
        requests = batch.requests
        with all_threads():
            scores = self._engine.score([r.context for r in requests], [r.continuations for r in requests])
        batch.answer_all(scores)


class Int8Model(HuggingFaceModel):
    """With its weights in 8 bits (``int8.py``): half the memory of bfloat16, a quarter of float32."""

    int8 = True

    def _loaded(self, path: str | Path, dtype: torch.dtype | None) -> SharedEngine:
        """Raises ModelError where the model, or this machine, is not one for it."""
        if (kernels := int8_kernels(dtype)) is None:
            raise ModelError(f"'{self.name}' cannot run in 8 bits: that takes Linux and gcc. Set {ELSE}.")
        # As it is stored: its files are then mapped, and each layer is read when its turn comes.
        model = self._read(path, "auto")
        if not (takes(model) and decoder.takes_int8(model)):
            raise ModelError(
                f"'{self.name}' cannot run in 8 bits: that takes a Llama, Mistral or Qwen model of plain layers, and "
                f"an x86 processor. Set {ELSE}."
            )
        how = Decoder(model, int8=kernels[0], dtype=kernels[1])
        return SharedEngine(how, self._tokens.tokenizer, self._tokens.ends)


def int8_kernels(dtype: torch.dtype | None = None) -> tuple[Fused, torch.dtype] | None:
    """What multiplies weights in 8 bits here, and what else is computed in: ``dtype``, or what can be had."""
    for tried in (dtype,) if dtype else (machine.best_dtype(), torch.float32):
        if (kernels := fused(tried)) and kernels.takes_int8:
            return kernels, tried
    return None


class _Arrivals:
    def __init__(self, batch: Batch[Generation, Completion], tokens: Tokens) -> None:
        self._batch, self._tokens = batch, tokens

    def more(self, beginning: list[int]) -> list[tuple[list[int], int]]:
        return [(r.tokens, r.sampling.seed) for r in self._batch.more(beginning)]

    def said(self, number: int, tokens: list[int]) -> None:
        request = self._batch.pending[number].request
        self._batch.answer(number, self._tokens.completion(request, tokens))
