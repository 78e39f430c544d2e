"""Whether our engine gives the texts and the scores of plain transformers, without sampling."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import torch
from results import Row, at_least, under
from sides import GREEDY, choices, ours, plain, scored, token_ids
from workloads import chats, critiques, feedback

from constitutional_ai import machine
from constitutional_ai.engine.sampling import Decoding, Sampler

FIRST = 32
"""Tokens of each completion that are compared."""


def agreement_rows() -> list[Row]:
    """Compare texts and scores in this machine's fast precision and in float32."""
    prompts = {"chats": token_ids(chats(16)), "critiques": token_ids(critiques(4))}
    rows = []
    for dtype in dict.fromkeys([machine.best_dtype(), torch.float32]):
        for kind, ids in prompts.items():
            rows += text_rows(f"{kind}, {dtype}", ids, dtype)
        rows.append(score_row(dtype))
    return rows


def text_rows(name: str, prompts: list[list[int]], dtype: torch.dtype) -> list[Row]:
    """Compare greedy texts, and single next tokens, with those of plain transformers run on one prompt at a time.

    Below float32, one rounding changes all the text that follows. There plain transformers itself gives other texts in
    batches than one by one, as the second row shows, so only the next token after the same prefix has a bar.
    """
    (_, single), (_, batched) = [plain(prompts, dtype, size=size, how=GREEDY) for size in (1, len(prompts))]
    engine, exact = ours(dtype)._engine, dtype == torch.float32
    text = share_of_same(greedy(prompts, engine), single)
    next_token = share_of_same(greedy(prompts, engine, forced=single), single)
    unit = f"of the first {FIRST} tokens, {len(prompts)} requests"
    return [
        at_least(f"{name}: our text as plain one by one", text, unit, 1 if exact else None),
        Row(f"{name}: plain in batches as plain one by one", share_of_same(batched, single), unit),
        at_least(f"{name}: our next token after plain's own prefix", next_token, unit, 1 if exact else 0.95),
    ]


def score_row(dtype: torch.dtype) -> Row:
    """Return the largest difference between our scores and those of plain transformers."""
    contexts = feedback(shots=True)[::4]
    reference = plain(token_ids(contexts), dtype, ends=choices())[1]
    most, name = (
        max(differences(scored(contexts, ours(dtype)), reference)),
        f"scores, {dtype}: furthest from plain",
    )
    return under(name, most, "nats", 1e-3) if dtype == torch.float32 else Row(name, most, "nats")


def differences(scores: list[list[float]], reference: list[list[float]]) -> list[float]:
    """Return the absolute differences of all scores."""
    pairs = zip(scores, reference, strict=True)
    return [abs(a - b) for ours_, others in pairs for a, b in zip(ours_, others, strict=True)]


def greedy(prompts: list[list[int]], engine: Any, forced: list[list[int]] | None = None) -> list[list[int]]:
    """Return the likeliest tokens after each prompt.

    With ``forced`` each step continues the tokens in it, whatever the likeliest token was.
    """
    best: list[list[int]] = [[] for _ in prompts]

    def choose(_: Sampler, logits_BV: torch.Tensor, sequences: list[int], step: int) -> torch.Tensor:
        tokens = logits_BV.float().argmax(-1)
        for i, token in zip(sequences, tokens.tolist(), strict=True):
            best[i].append(token)
        if forced is not None:
            next_tokens = [forced[i][min(step, len(forced[i]) - 1)] for i in sequences]
            tokens = torch.tensor(next_tokens, device=tokens.device)
        return tokens

    with mock.patch.object(Sampler, "__call__", choose):
        engine.generate(prompts, Decoding([0] * len(prompts), 0.0, FIRST, ()), threading.Event())
    return best


def share_of_same(texts: list[list[int]], others: list[list[int]]) -> float:
    """Return the share of the first tokens that are the same; where only one text has ended, they differ."""
    pairs = [(a[:FIRST], b[:FIRST]) for a, b in zip(texts, others, strict=True)]
    same = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return same / sum(max(len(a), len(b)) for a, b in pairs)
