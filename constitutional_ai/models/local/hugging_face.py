"""Models in this process, on CPU or GPU: our own engine (``native``), or plain transformers, the reference.

A request's own seed fixes its draws (inverse transform sampling), so a completion does not depend on what else is in
its batch, save for rounding: in bfloat16 a batch of another shape can round a logit differently.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GenerationConfig

from constitutional_ai import machine
from constitutional_ai.engine.open import Engine, all_threads, int8_dtype, open_engine
from constitutional_ai.engine.sampling import Decoding
from constitutional_ai.errors import ModelError
from constitutional_ai.models.abilities import DecisionQuestion, Reading
from constitutional_ai.models.batching import Batcher
from constitutional_ai.models.local.padded import PaddedGenerate
from constitutional_ai.models.local.tokens import NO_CODE, Generation, Scoring, Tokens, cannot_load
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.records import Completion

if TYPE_CHECKING:
    from constitutional_ai.models.local.decision_pipeline import DecisionReference

GENERATE_BATCH, SCORE_BATCH = 128, 64
BATCH_TOKENS = 65_536
"""Tokens of a batch, padding included. One long text would else make 63 short ones as long, and fill the memory."""


class HuggingFaceModel:
    """A causal language model in a folder of safetensors, or on the hub. No remote code, no pickle.

    It runs on our own engine where that supports it, else on plain transformers. The names of this class and of those
    below are in the keys of the cache of calls, which tells engines apart by them.
    """

    int8 = False
    """Whether its weights are kept in 8 bits."""

    def __init__(
        self, name: str, path: str | Path, *, dtype: torch.dtype | None = None, model: Any = None
    ) -> None:
        """``model`` is that of ``path``, where it is in memory already. It is then only fit to ``score``."""
        self.name, self._path = name, path
        self._tokens = Tokens(name, path)
        self.format = self._tokens.format
        fixed, dtype = model is None, dtype or machine.best_dtype()
        self._engine = self._open(model or self._load(path, dtype).to(machine.device()), fixed=fixed)
        self._generations: Batcher[Generation, Completion] = Batcher(
            self._generate,
            size=GENERATE_BATCH,
            key=lambda r: (r.sampling.temperature, r.sampling.max_tokens, r.stop),
            length=lambda r: len(r.tokens) + r.sampling.max_tokens,
            prompt=lambda r: r.tokens if self._engine.shares else (),
            steps=lambda r: r.sampling.max_tokens,
            max_tokens=BATCH_TOKENS,
        )
        self._scorings: Batcher[Scoring, list[float]] = Batcher(
            self._score,
            size=SCORE_BATCH,
            key=lambda r: 0,
            length=lambda r: self._engine.tokens_to_score(*r),
            prompt=lambda r: r.context if self._engine.shares else (),
            max_tokens=BATCH_TOKENS,
        )

    def _load(self, path: str | Path, dtype: torch.dtype | str) -> Any:
        try:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, **NO_CODE)
        except (OSError, ValueError, SafetensorError) as error:
            raise cannot_load(self.name, error) from error
        # Nothing else of the model's own settings: a repetition penalty is no plain sampling (SL-10).
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(self._tokens.ends), pad_token_id=self._tokens.tokenizer.pad_token_id
        )
        return model

    def _open(self, model: Any, *, fixed: bool) -> Engine:
        """Return an engine for ``model``. ``fixed``: its weights will not change."""
        tokenizer, ends = self._tokens.tokenizer, self._tokens.ends
        return open_engine(model.eval(), tokenizer, ends, fixed=fixed) or PaddedGenerate(model, tokenizer, ends)

    def paths(self) -> dict[str, str]:
        """Return which code computes attention and matrix products."""
        return self._engine.paths()

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        """See ``Model``. Raises RecordError where the context leaves no room for a completion."""
        return await self._generations.ask(self._tokens.generation(context, sampling))

    async def stream(self, context: Context, sampling: Sampling, show: Callable[[str], None]) -> Completion:
        """See ``Streams``. Plain transformers show nothing before the end."""
        loop = asyncio.get_running_loop()

        def show_here(text: str) -> None:
            loop.call_soon_threadsafe(show, text)

        return await self._generations.ask(self._tokens.generation(context, sampling)._replace(show=show_here))

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        """See ``Model``. Raises RecordError for an empty continuation or a context that is too long."""
        return await self._scorings.ask(self._tokens.scoring(context, continuations))

    async def decide(self, state: str, question: DecisionQuestion) -> Reading:
        """See ``Decides``. transformers' own pipeline answers, on weights of its own: a reference, and slow."""
        return await asyncio.to_thread(self._reference.decide, state, question)

    @cached_property
    def _reference(self) -> DecisionReference:
        from constitutional_ai.models.local.decision_pipeline import DecisionReference

        return DecisionReference(self.name, self._path)

    def _generate(self, requests: list[Generation], cancelled: threading.Event) -> list[Completion]:
        sampling, seeds = requests[0].sampling, [r.sampling.seed for r in requests]
        decoding = Decoding(seeds, sampling.temperature, sampling.max_tokens, requests[0].stop)
        if any(request.show for request in requests):
            decoding = decoding._replace(watch=lambda index, tokens: self._tokens.show(requests[index], tokens))
        with all_threads():
            completions = self._engine.generate([r.tokens for r in requests], decoding, cancelled)
        return [self._tokens.completion(*each) for each in zip(requests, completions, strict=True)]

    def _score(self, requests: list[Scoring], _: threading.Event) -> list[list[float]]:
        with all_threads():
            return self._engine.score([r.context for r in requests], [r.continuations for r in requests])


class TransformersModel(HuggingFaceModel):
    """The same on plain transformers: the reference, for any architecture."""

    def _open(self, model: Any, *, fixed: bool) -> Engine:
        return PaddedGenerate(model.eval(), self._tokens.tokenizer, self._tokens.ends)


class Int8Model(HuggingFaceModel):
    """The same with its weights in 8 bits: half the memory of bfloat16, a quarter of float32."""

    int8 = True

    def __init__(self, name: str, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Raises ModelError where the model cannot run in 8 bits, or this machine cannot."""
        self._dtype = int8_dtype(dtype)
        if self._dtype is None:
            raise _not_in_8_bits(name, "Linux, gcc and a processor with AVX-512 VNNI or AMX")
        super().__init__(name, path)

    def _load(self, path: str | Path, dtype: torch.dtype | str) -> Any:
        # In the stored precision: the files are then mapped, and each layer is read when its turn comes.
        return super()._load(path, "auto")

    def _open(self, model: Any, *, fixed: bool) -> Engine:
        tokenizer, ends = self._tokens.tokenizer, self._tokens.ends
        engine = open_engine(model, tokenizer, ends, fixed=fixed, int8=self._dtype)
        if engine is None:
            raise _not_in_8_bits(self.name, "a Llama, Mistral or Qwen model of plain layers on a CPU")
        return engine


def _not_in_8_bits(name: str, needed: str) -> ModelError:
    return ModelError(
        f"'{name}' cannot run in 8 bits: that takes {needed}. Set engine=openvino-int8, or engine=transformers."
    )
