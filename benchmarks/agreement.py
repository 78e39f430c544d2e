"""Whether our backend says what plain transformers says: greedy texts, and scores."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import torch
from results import Row
from sides import GREEDY, choices, ours, plain, scored, token_ids
from workloads import chats, critiques, feedback

from constitutional_ai import machine
from constitutional_ai.engine.sampling import Decoding, Sampler

FIRST = 32
"""Tokens that are compared."""


def agreement_rows() -> list[Row]:
    """In bfloat16 plain transformers does not agree with itself in another batch either; that row shows how much."""
    made = []
    rows_of = {"chats": chats(16), "critiques": critiques(4)}
    for dtype, bar in dict.fromkeys([(machine.best_dtype(), 0.95), (torch.float32, 1.0)]):
        for what, contexts in rows_of.items():
            rows, name = token_ids(contexts), f"{what}, {dtype}"
            (_, alone), (_, batched) = [plain(rows, dtype, size=size, how=GREEDY) for size in (1, len(rows))]
            engine = ours(dtype)._engine
            own, next_ = agree(said(rows, engine), alone), agree(said(rows, engine, forced=alone), alone)
            unit, asked = f"of first {FIRST} tokens, {len(rows)} requests", f"at least {bar:g}"
            made += [
                Row(f"{name}: as plain alone", own, unit, asked, own >= bar),
                Row(f"{name}: plain batched, as plain alone", agree(batched, alone), unit, ""),
                Row(f"{name}: each next token, after plain's own", next_, unit, asked, next_ >= bar),
            ]
        made.append(apart(dtype))
    return made


def apart(dtype: torch.dtype) -> Row:
    asked = feedback(True)[::4]
    pairs = zip(scored(asked, dtype), plain(token_ids(asked), dtype, ends=choices())[1], strict=True)
    most = max(abs(a - b) for own, theirs in pairs for a, b in zip(own, theirs, strict=True))
    exact = dtype == torch.float32
    asks = "under 0.001" if exact else ""
    return Row(f"scores, {dtype}: furthest from plain", most, "nats", asks, most < 1e-3 or not exact)


def said(rows: list[list[int]], engine: Any, forced: list[list[int]] | None = None) -> list[list[int]]:
    """Greedy; with ``forced``, what is said next after each of these tokens."""
    best: list[list[int]] = [[] for _ in rows]

    def draw(_: Sampler, logits_rv: torch.Tensor, numbers: list[int], step: int) -> torch.Tensor:
        tokens = logits_rv.float().argmax(-1)
        for number, token in zip(numbers, tokens.tolist(), strict=True):
            best[number].append(token)
        if forced is not None:
            known = [forced[number][min(step, len(forced[number]) - 1)] for number in numbers]
            tokens = torch.tensor(known, device=tokens.device)
        return tokens

    with mock.patch.object(Sampler, "__call__", draw):
        how = Decoding([0] * len(rows), 0.0, FIRST, ())
        engine.generate(rows, how, threading.Event())
    return best


def agree(rows: list[list[int]], others: list[list[int]]) -> float:
    """Share of the first tokens that are the same; where only one has ended, no token is."""
    pairs = [(a[:FIRST], b[:FIRST]) for a, b in zip(rows, others, strict=True)]
    same = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return same / sum(max(len(a), len(b)) for a, b in pairs)
