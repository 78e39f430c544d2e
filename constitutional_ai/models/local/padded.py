"""transformers' own ``generate`` over left-padded batches: the reference, and the fallback for any architecture.

Some layers keep a state instead of keys and values (Mamba, Qwen3-Next). Padding on the left may change a state, and a
state cannot be copied for several continuations. Such models generate in batches of prompts of one length, and score
whole texts, padded on the right, where no token sees the padding.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from constitutional_ai.engine.sampling import Decoding, Sampler

Pair = tuple[int, list[int]]
"""The index of a context, and the ids of one of its continuations."""


class PaddedGenerate:
    """An engine for any causal language model of transformers."""

    shares = False

    def __init__(self, model: Any, tokenizer: Any, ends: set[int]) -> None:
        self._model, self._tokenizer, self._ends = model, tokenizer, ends
        self._keeps_state = keeps_state(model)

    def paths(self) -> dict[str, str]:
        return dict.fromkeys(("attention", "products"), "transformers' modules")

    def generate(
        self, prompts: list[list[int]], decoding: Decoding, cancelled: threading.Event
    ) -> list[list[int]]:
        completions: list[list[int]] = [[] for _ in prompts]
        for group in _by_length(prompts) if self._keeps_state else [range(len(prompts))]:
            part = decoding._replace(seeds=[decoding.seeds[i] for i in group])
            of_group = self._generate([prompts[i] for i in group], part, cancelled)
            for i, completion in zip(group, of_group, strict=True):
                completions[i] = completion
        return completions

    def _generate(
        self, prompts: list[list[int]], decoding: Decoding, cancelled: threading.Event
    ) -> list[list[int]]:
        batch = self._pad(prompts)
        processors, criteria = LogitsProcessorList(), StoppingCriteriaList([_Cancelled(cancelled)])
        if decoding.temperature > 0:
            sampler = Sampler(decoding.seeds, decoding.temperature, decoding.max_tokens)
            processors.append(_SeededDraws(sampler, len(prompts)))
        stop = {"stop_strings": list(decoding.stop), "tokenizer": self._tokenizer} if decoding.stop else {}
        with torch.inference_mode():
            sequences = self._model.generate(
                **batch,
                do_sample=False,
                max_new_tokens=decoding.max_tokens,
                logits_processor=processors,
                stopping_criteria=criteria,
                **stop,
            )
        width = batch["input_ids"].shape[1]
        return [self._without_padding(sequence[width:].tolist()) for sequence in sequences]

    def _without_padding(self, tokens: list[int]) -> list[int]:
        """Return the tokens up to the end; a sequence that has ended is padded while the rest of its batch runs."""
        length = next((at for at, token in enumerate(tokens) if token in self._ends), len(tokens))
        return tokens[: length + 1]

    def score(self, contexts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Return log-probabilities. Each context is computed once, and its continuations follow from its cache."""
        pairs = [(i, ids) for i, of_context in enumerate(continuations) for ids in of_context]
        score = self._score_whole if self._keeps_state else self._score_from_cache
        scores = iter(score(contexts, pairs))
        return [[next(scores) for _ in of_context] for of_context in continuations]

    def _score_whole(self, contexts: list[list[int]], pairs: list[Pair]) -> list[float]:
        """Return the log-probability of each pair's continuation, from one pass over its whole text."""
        texts = [contexts[i] + ids for i, ids in pairs]
        batch = self._pad(texts, side="right")
        first = min(len(contexts[i]) for i, _ in pairs) - 1  # the first token whose logits are needed
        with torch.inference_mode():
            width = batch["input_ids"].shape[1]
            logits = self._model(**batch, use_cache=False, logits_to_keep=width - first).logits
        totals = []
        for logits_TV, (i, ids) in zip(logits, pairs, strict=True):
            start = len(contexts[i]) - 1 - first
            totals.append(_log_probability(logits_TV[start : start + len(ids)], ids))
        return totals

    def _score_from_cache(self, contexts: list[list[int]], pairs: list[Pair]) -> list[float]:
        batch = self._pad(contexts)
        which = torch.tensor([i for i, _ in pairs], device=self._model.device)
        with torch.inference_mode():
            cache = DynamicCache(config=self._model.config)
            mask = batch["attention_mask"]
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            head = self._model(
                **batch, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            first = head.logits[:, -1].float().log_softmax(-1)
            totals = [float(first[i, ids[0]]) for i, ids in pairs]
            if max(len(ids) for _, ids in pairs) > 1:
                cache.batch_select_indices(which)
                rest = self._rest([ids for _, ids in pairs], mask[which], cache)
                totals = [a + b for a, b in zip(totals, rest, strict=True)]
        return totals

    def tokens_to_score(self, context: list[int], continuations: Sequence[list[int]]) -> int:
        """Return the tokens of one context: every continuation follows from a copy of its cache."""
        return len(continuations) * (len(context) + max(map(len, continuations)))

    def _rest(self, continuations: list[list[int]], mask: torch.Tensor, cache: DynamicCache) -> list[float]:
        """Return the log-probability of every continuation's tokens after its first."""
        width = max(map(len, continuations)) - 1
        pad = self._tokenizer.pad_token_id
        tokens = torch.tensor(
            [ids[:-1] + [pad] * (width - len(ids) + 1) for ids in continuations], device=mask.device
        )
        positions = mask.sum(-1, keepdim=True) + torch.arange(width, device=mask.device)
        out = self._model(
            input_ids=tokens,
            attention_mask=torch.cat([mask, torch.ones_like(tokens)], dim=1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return [
            _log_probability(logits, ids[1:]) for logits, ids in zip(out.logits, continuations, strict=True)
        ]

    def _pad(self, sequences: list[list[int]], side: str = "left") -> dict[str, torch.Tensor]:
        batch = self._tokenizer.pad(
            {"input_ids": sequences}, padding=True, padding_side=side, return_tensors="pt"
        )
        return {k: batch[k].to(self._model.device) for k in ("input_ids", "attention_mask")}


def keeps_state(model: Any) -> bool:
    """Return whether a layer of the model keeps a state in place of keys and values, which cannot be cut or copied."""
    if getattr(model, "_is_stateful", False):
        return True
    layers = DynamicCache(config=model.config).layers
    return any(not hasattr(layer, "batch_select_indices") for layer in layers)


def _by_length(prompts: list[list[int]]) -> list[list[int]]:
    """Return the indices of the prompts of each length."""
    groups: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(i)
    return list(groups.values())


def _log_probability(logits_TV: torch.Tensor, ids: list[int]) -> float:
    """Return the log-probability of ``ids``, of which each has its row of logits; there may be more rows."""
    wanted_T = torch.tensor(ids, dtype=torch.long, device=logits_TV.device)
    logps_TV = logits_TV[: len(ids)].float().log_softmax(-1)
    return float(logps_TV.gather(1, wanted_T[:, None]).sum())


class _SeededDraws(LogitsProcessor):  # type: ignore[misc]
    """Leaves only the token that each sequence's own seed draws, so that greedy search then takes it."""

    def __init__(self, sampler: Sampler, sequences: int) -> None:
        self._sampler, self._sequences, self._step = sampler, range(sequences), 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens_B = self._sampler(scores, self._sequences, self._step)
        self._step += 1
        return torch.full_like(scores, float("-inf")).scatter_(1, tokens_B[:, None], 0.0)


class _Cancelled(StoppingCriteria):  # type: ignore[misc]
    """Ends all sequences once nobody waits for them."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device)
