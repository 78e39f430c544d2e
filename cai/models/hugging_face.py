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
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from cai.errors import ModelError, RecordError
from cai.models.batching import Batcher
from cai.models.model import STOP_STRINGS, Context, Format, Sampling, cut_at_stop, plain
from cai.models.rendering import defused, defused_content, defused_messages, speaks_plain
from cai.records import Completion, Conversation, FinishReason, as_messages

GENERATE_BATCH, SCORE_BATCH = 64, 16
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
        self.format: Format = "plain" if speaks_plain(self._tokenizer) else "chat"
        self._generations = Batcher(
            self._generate,
            size=GENERATE_BATCH,
            key=lambda r: (r.sampling.temperature, r.sampling.max_tokens, r.sampling.stop),
            length=lambda r: len(r.tokens) + r.sampling.max_tokens,
            padded=BATCH_TOKENS,
        )
        self._scorings = Batcher(
            self._score,
            size=SCORE_BATCH,
            key=lambda r: 0,
            # Every continuation goes on from a copy of its context's cache.
            length=lambda r: len(r.continuations) * (len(r.context) + max(map(len, r.continuations))),
            padded=BATCH_TOKENS,
        )

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

    # -- generate

    def _generate(self, requests: list[_Generation], cancelled: threading.Event) -> list[Completion]:
        sampling = requests[0].sampling
        stop = sampling.stop + (STOP_STRINGS if self.format == "plain" else ())
        batch = self._padded([r.tokens for r in requests])
        processors, criteria = LogitsProcessorList(), StoppingCriteriaList([_Cancelled(cancelled)])
        if sampling.temperature > 0:
            seeds = [r.sampling.seed for r in requests]
            processors.append(_SeededDraws(seeds, sampling.temperature, sampling.max_tokens))
        with torch.inference_mode():
            rows = self._model.generate(
                **batch,
                do_sample=False,
                max_new_tokens=sampling.max_tokens,
                logits_processor=processors,
                stopping_criteria=criteria,
                **({"stop_strings": list(stop), "tokenizer": self._tokenizer} if stop else {}),
            )
        width = batch["input_ids"].shape[1]
        return [
            self._completion(row[width:].tolist(), request, stop)
            for row, request in zip(rows, requests, strict=True)
        ]

    def _completion(self, tokens: list[int], request: _Generation, stop: Sequence[str]) -> Completion:
        # A row that met a stop string is padded while the rest of its batch goes on.
        ends = _ids(self._model.generation_config.eos_token_id) | {self._tokenizer.pad_token_id}
        length = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
        ended = length < len(tokens)
        text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
        text, stopped = cut_at_stop(text, stop)
        finish: FinishReason = "stop" if ended or stopped else "length"
        return Completion(
            text.strip(), self.name, finish, len(request.tokens), length + (ended and not stopped)
        )

    # -- score

    def _score(self, requests: list[_Scoring], cancelled: threading.Event) -> list[list[float]]:
        """Each context is computed once, and its continuations go on from its cache."""
        batch = self._padded([r.context for r in requests])
        rows = [(i, ids) for i, r in enumerate(requests) for ids in r.continuations]
        which = torch.tensor([i for i, _ in rows], device=self._model.device)
        with torch.inference_mode():
            cache = DynamicCache(config=self._model.config)
            mask = batch["attention_mask"]
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            head = self._model(
                **batch, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            first = head.logits[:, -1].float().log_softmax(-1)
            totals = [float(first[i, ids[0]]) for i, ids in rows]
            if max(len(ids) for _, ids in rows) > 1:
                cache.batch_select_indices(which)
                rest = self._rest(rows, mask[which], cache)
                totals = [a + b for a, b in zip(totals, rest, strict=True)]
        scores = iter(totals)
        return [[next(scores) for _ in r.continuations] for r in requests]

    def _rest(self, rows: list[tuple[int, list[int]]], mask: torch.Tensor, cache: DynamicCache) -> list[float]:
        """Log-probability of every continuation's tokens after its first."""
        width = max(len(ids) for _, ids in rows) - 1
        pad = self._tokenizer.pad_token_id
        tokens = torch.tensor(
            [ids[:-1] + [pad] * (width - len(ids) + 1) for _, ids in rows], device=mask.device
        )
        positions = mask.sum(-1, keepdim=True) + torch.arange(width, device=mask.device)
        out = self._model(
            input_ids=tokens,
            attention_mask=torch.cat([mask, torch.ones_like(tokens)], dim=1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        totals = []
        for logits, (_, ids) in zip(out.logits, rows, strict=True):
            wanted = torch.tensor(ids[1:], device=mask.device)
            logps = logits[: len(wanted)].float().log_softmax(-1)
            totals.append(float(logps.gather(1, wanted[:, None]).sum()))
        return totals

    def _padded(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        batch = self._tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")
        return {k: batch[k].to(self._model.device) for k in ("input_ids", "attention_mask")}


class _SeededDraws(LogitsProcessor):  # type: ignore[misc]
    """Leaves only the token that each row's own seed draws, so that greedy search then takes it."""

    def __init__(self, seeds: list[int], temperature: float, steps: int) -> None:
        draws = [torch.rand(steps, generator=torch.Generator().manual_seed(s)) for s in seeds]
        self._uniform_RS = torch.stack(draws)
        self._temperature = temperature
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        cumulative_RV = (scores.float() / self._temperature).softmax(-1).cumsum(-1)
        uniform_R1 = self._uniform_RS[:, self._step, None].to(scores.device)
        # The last cumulative value rounds to a little under or over 1: scale the draw, never fall off the end.
        drawn_R1 = torch.searchsorted(cumulative_RV, uniform_R1 * cumulative_RV[:, -1:], right=True)
        drawn_R1 = drawn_R1.clamp(max=scores.shape[-1] - 1)
        self._step += 1
        return torch.full_like(scores, float("-inf")).scatter_(1, drawn_R1, 0.0)


class _Cancelled(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device)


def cannot_load(name: str, error: Exception) -> ModelError:
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return ModelError(f"cannot load '{name}': {first} Give hf:<folder with config.json and whole safetensors>.")


def _ids(value: int | list[int] | None) -> set[int]:
    return set() if value is None else {value} if isinstance(value, int) else set(value)
