"""transformers in this process: the reference backend, for CPU and GPU.

Draws are fixed by each request's own seed (inverse transform sampling), so an answer does not depend on what else is
in its batch, save for rounding: in bfloat16 a batch of another shape can round a logit differently.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from cai.errors import ModelError, RecordError
from cai.models.batching import Batcher
from cai.models.decoding import Decoding
from cai.models.model import STOP_STRINGS, Context, Format, Sampling, cut_at_stop, plain
from cai.models.padded_engine import PaddedEngine
from cai.models.rendering import defused, defused_content, defused_messages, speaks_plain
from cai.models.shared_engine import SharedEngine
from cai.models.shared_prefix import takes
from cai.records import Completion, Conversation, FinishReason, as_messages

GENERATE_BATCH, SCORE_BATCH = 128, 64
BATCH_TOKENS = 65_536
"""Of a batch, padding included. One long text would else make 63 short ones as long, and fill the memory."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, else float32 (emulated bfloat16 is slower)."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


class _Generation(NamedTuple):
    tokens: list[int]
    sampling: Sampling


class _Scoring(NamedTuple):
    context: list[int]
    continuations: list[list[int]]


class HuggingFaceModel:
    """A causal language model in a folder of safetensors, or on the hub. No remote code, no pickle."""

    def __init__(
        self, name: str, path: str | Path, *, dtype: torch.dtype | None = None, model: Any = None
    ) -> None:
        """``model`` is that of ``path``, where it is in memory already. It is then only fit to ``score``."""
        self.name = name
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, padding_side="left")
            loaded = model or AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype or best_dtype(), use_safetensors=True
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise cannot_load(name, error) from error
        self._model: Any = loaded.to(device()).eval()
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if model is None:
            # Nothing else of the model's own settings: a repetition penalty is no plain sampling (SL-10).
            self._model.generation_config = GenerationConfig(
                eos_token_id=self._model.generation_config.eos_token_id,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        self._ends = _ids(self._model.generation_config.eos_token_id) | {self._tokenizer.pad_token_id}
        self._alone = threading.Lock()  # what is generated and what is scored come from two threads
        self._engine = self._engine_for(kept=model is None)
        self.format: Format = "plain" if speaks_plain(self._tokenizer) else "chat"
        self._generations = Batcher(
            self._generate,
            size=GENERATE_BATCH,
            key=lambda r: (r.sampling.temperature, r.sampling.max_tokens, r.sampling.stop),
            length=lambda r: len(r.tokens) + r.sampling.max_tokens,
            begins=lambda r: r.tokens if self._engine.shares else (),
            steps=lambda r: r.sampling.max_tokens,
            padded=BATCH_TOKENS,
        )
        self._scorings = Batcher(
            self._score,
            size=SCORE_BATCH,
            key=lambda r: 0,
            length=lambda r: self._engine.tokens_to_score(*r),
            begins=lambda r: r.context if self._engine.shares else (),
            padded=BATCH_TOKENS,
        )

    def _engine_for(self, kept: bool) -> PaddedEngine | SharedEngine:
        if takes(self._model):
            return SharedEngine(self._model, self._tokenizer, self._ends, keep=kept)
        return PaddedEngine(self._model, self._tokenizer, self._ends)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        return await self._generations.ask(
            _Generation(self._tokens(context, room=sampling.max_tokens), sampling)
        )

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        # Tokenised apart from the context, so that every continuation is the same tokens after any context.
        ends = [self._tokenizer(c, add_special_tokens=False)["input_ids"] for c in continuations]
        if not all(ends):
            raise RecordError("an empty continuation has no probability")
        room = max(map(len, ends))
        return await self._scorings.ask(_Scoring(self._tokens(context, room=room), ends))

    # -- text to tokens

    def _tokens(self, context: Context, *, room: int) -> list[int]:
        if isinstance(context, str):
            tokens: list[int] = self._tokenizer(defused(context, self._tokenizer))["input_ids"]
        elif self.format == "plain":
            safe = [replace(m, content=defused_content(m.content, self._tokenizer)) for m in context]
            tokens = self._tokenizer(plain(tuple(safe)))["input_ids"]
        else:
            tokens = self._tokenizer(self._chat(context), add_special_tokens=False)["input_ids"]
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if limit is not None and len(tokens) + room > limit:
            raise RecordError(f"{len(tokens)} tokens of context and {room} to come exceed the model's {limit}")
        return tokens

    def _chat(self, conversation: Conversation) -> str:
        messages = defused_messages(as_messages(conversation), self._tokenizer)
        continued = conversation[-1].role == "assistant"
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=not continued, continue_final_message=continued
            )
        # Some templates refuse a role or an order of turns; some cut what a text says before "</think>".
        except (TemplateError, ValueError) as error:
            raise RecordError(f"the model's chat template refuses this conversation: {error}") from error
        return text

    # -- batches

    def _generate(self, requests: list[_Generation], cancelled: threading.Event) -> list[Completion]:
        sampling = requests[0].sampling
        stop = sampling.stop + (STOP_STRINGS if self.format == "plain" else ())
        seeds = [r.sampling.seed for r in requests]
        how = Decoding(seeds, sampling.temperature, sampling.max_tokens, stop)
        with self._alone:
            said = self._engine.generate([r.tokens for r in requests], how, cancelled)
        return [self._completion(*each, stop) for each in zip(said, requests, strict=True)]

    def _completion(self, tokens: list[int], request: _Generation, stop: Sequence[str]) -> Completion:
        ended = bool(tokens) and tokens[-1] in self._ends
        text = self._tokenizer.decode(tokens[: len(tokens) - ended], skip_special_tokens=True)
        text, stopped = cut_at_stop(text, stop)
        finish: FinishReason = "stop" if ended or stopped else "length"
        return Completion(
            text.strip(), self.name, finish, len(request.tokens), len(tokens) - (ended and stopped)
        )

    def _score(self, requests: list[_Scoring], cancelled: threading.Event) -> list[list[float]]:
        with self._alone:
            return self._engine.score([r.context for r in requests], [r.continuations for r in requests])


def cannot_load(name: str, error: Exception) -> ModelError:
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return ModelError(f"cannot load '{name}': {first} Give hf:<folder with config.json and whole safetensors>.")


def _ids(value: int | list[int] | None) -> set[int]:
    return set() if value is None else {value} if isinstance(value, int) else set(value)
