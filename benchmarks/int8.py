"""Weights in 8 bits beside this machine's fast precision and float32: the speed, in turns, and the loss of accuracy.

Two kinds of rows give the loss: how often the next token after a prefix of float32's own greedy text is float32's too,
and how far the scores of whole continuations are from float32's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from agreement import FIRST, differences, greedy, share_of_same
from results import Row, at_least, ratio, report
from sides import GREEDY, cold, generated, in_turns, ours, plain, scored, token_ids
from workloads import BASE, chats, critiques, feedback

from constitutional_ai import machine
from constitutional_ai.models.local.hugging_face import Int8Model


def chat_tokens(count: int, model: Any) -> int:
    """Generate ``count`` chats, and return their new tokens."""
    return sum(completion.completion_tokens for completion in generated(chats(count), model))


def critique_requests(model: Any) -> int:
    """Generate the critiques, and return their number."""
    return len(generated(critiques(), model))


def feedback_scores(model: Any) -> int:
    """Score the feedback questions, and return the number of scores."""
    return sum(map(len, scored(feedback(shots=False), model)))


def speed(dtype: torch.dtype, int8: Any) -> list[Row]:
    """Compare the speed of ``int8`` with that of the weights in ``dtype``."""
    works: dict[str, Callable[[Any], int]] = {
        f"{count} chat{'s' * (count > 1)}": partial(chat_tokens, count) for count in (1, 8, 16, 128)
    }
    works["feedback on a pair"] = feedback_scores
    if dtype == machine.best_dtype():
        works["64 critiques"] = critique_requests
    rows = []
    for name, work in works.items():
        eight, usual = in_turns(*[partial(cold, partial(work, model), model) for model in (int8, ours(dtype))])
        rates = [a.rate / b.rate for a, b in zip(eight, usual, strict=True)]
        rows.append(ratio(f"{name}: 8 bits, times {dtype}", rates))
    return rows


def loss(who: str, model: Any, exact: list[tuple[str, list[list[int]], list[list[int]]]]) -> list[Row]:
    """Compare ``model`` with float32; ``exact`` has a kind of prompts, the prompts, and float32's greedy texts."""
    rows = []
    for kind, prompts, texts in exact:
        share = share_of_same(greedy(prompts, model._engine, forced=texts), texts)
        unit = f"of the first {FIRST} tokens, {len(prompts)} requests"
        rows.append(at_least(f"{kind}, {who}: each next token as float32", share, unit, 0.95))
    contexts = feedback(shots=True)[::4]
    away = statistics.mean(differences(scored(contexts, model), scored(contexts, ours(torch.float32))))
    return [*rows, Row(f"scores, {who}: mean distance from float32", away, "nats")]


def main() -> None:
    exact = []
    for kind, contexts in {"chats": chats(64), "critiques": critiques(16)}.items():
        prompts = token_ids(contexts)
        exact.append((kind, prompts, plain(prompts, torch.float32, size=8, how=GREEDY)[1]))
    rows = []
    for dtype in dict.fromkeys([machine.best_dtype(), torch.float32]):
        int8 = Int8Model("int8", BASE, dtype=dtype)
        rows += [*speed(dtype, int8), *loss(f"8 bits, else {dtype}", int8, exact)]
        if dtype != torch.float32:
            rows += loss(str(dtype), ours(dtype), exact)
    report("int8", rows)


if __name__ == "__main__":
    main()
