"""transformers' own generate over left-padded rows: for the architectures that nothing is known of."""

from __future__ import annotations

import threading
from typing import Any

import torch
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from constitutional_ai.engine.decode_loop import Arrivals, Decoding, Draws


class PaddedEngine:
    """For any causal language model of transformers."""

    shares = False

    def __init__(self, model: Any, tokenizer: Any, ends: set[int]) -> None:
        self._model, self._tokenizer, self._ends = model, tokenizer, ends

    def generate(
        self,
        rows: list[list[int]],
        how: Decoding,
        cancelled: threading.Event,
        arrivals: Arrivals | None = None,
    ) -> list[list[int]]:
        """What each row says, its end included. Nobody joins: transformers' loop takes none in."""
        batch = self._padded(rows)
        processors, criteria = LogitsProcessorList(), StoppingCriteriaList([_Cancelled(cancelled)])
        if how.temperature > 0:
            processors.append(_SeededDraws(how.seeds, how.temperature, how.max_tokens))
        with torch.inference_mode():
            said = self._model.generate(
                **batch,
                do_sample=False,
                max_new_tokens=how.max_tokens,
                logits_processor=processors,
                stopping_criteria=criteria,
                **({"stop_strings": list(how.stop), "tokenizer": self._tokenizer} if how.stop else {}),
            )
        width = batch["input_ids"].shape[1]
        return [self._own(row[width:].tolist()) for row in said]

    def _own(self, tokens: list[int]) -> list[int]:
        """A row that has ended is padded while the rest of its batch goes on."""
        length = next((at for at, token in enumerate(tokens) if token in self._ends), len(tokens))
        return tokens[: length + 1]

    def score(self, contexts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Each context is computed once, and its continuations go on from its cache."""
        batch = self._padded(contexts)
        rows = [(i, ids) for i, of_context in enumerate(continuations) for ids in of_context]
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
        return [[next(scores) for _ in of_context] for of_context in continuations]

    def tokens_to_score(self, context: list[int], continuations: list[list[int]]) -> int:
        """Every continuation goes on from a copy of its context's cache."""
        return len(continuations) * (len(context) + max(map(len, continuations)))

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
        self._draws, self._rows, self._step = Draws(seeds, temperature, steps), range(len(seeds)), 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        drawn_R = self._draws(scores, self._rows, [self._step] * len(self._rows))
        self._step += 1
        return torch.full_like(scores, float("-inf")).scatter_(1, drawn_R[:, None], 0.0)


class _Cancelled(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device)
