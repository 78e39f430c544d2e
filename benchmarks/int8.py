"""Weights in 8 bits beside those of this machine's precision, and of float32: speed, in turns, and what is lost.

Two rows hold against each other what is lost: of texts that float32 says, greedily, each next token after its own
beginning; and how far scores of whole continuations are from float32's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from agreement import FIRST, agree, said
from engines import in_turns
from results import Row, report
from sides import GREEDY, cold, generated, ours, plain, scored, token_ids
from workloads import BASE, chats, critiques, feedback

from constitutional_ai import machine
from constitutional_ai.models.local.hugging_face import Int8Model

Work = Callable[[Any], int]


def spoken(count: int, model: Any) -> int:
    return sum(said.completion_tokens for said in generated(chats(count), model))


def criticised(model: Any) -> int:
    return len(generated(critiques(), model))


def labelled(dtype: torch.dtype, model: Any) -> int:
    return sum(map(len, scored(feedback(False), dtype, model)))


def speed(dtype: torch.dtype, int8: Any) -> list[Row]:
    works: dict[str, Work] = {f"{count} chats": partial(spoken, count) for count in (1, 8, 16, 128)}
    works["feedback on a pair"] = partial(labelled, dtype)
    if dtype == machine.best_dtype():
        works["64 critiques"] = criticised
    made = []
    for name, work in works.items():
        sides = [partial(cold, partial(work, model), model) for model in (int8, ours(dtype))]
        eight, usual = in_turns(*sides)
        ratios = [a.rate / b.rate for a, b in zip(eight, usual, strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        made.append(Row(f"{name}: times {dtype}", statistics.median(ratios), spread, ""))
    return made


def lost(who: str, model: Any, exact: list[tuple[str, list[list[int]], list[list[int]]]]) -> list[Row]:
    made = []
    for what, rows, alone in exact:
        share = agree(said(rows, model._engine, forced=alone), alone)
        unit = f"of first {FIRST} tokens, {len(rows)} requests"
        made.append(
            Row(f"{what}, {who}: each next token as float32", share, unit, "at least 0.95", share >= 0.95)
        )
    asked = feedback(True)[::4]
    apart = [
        abs(a - b)
        for own, wanted in zip(scored(asked, torch.float32, model), scored(asked, torch.float32), strict=True)
        for a, b in zip(own, wanted, strict=True)
    ]
    made.append(Row(f"scores, {who}: mean distance from float32", statistics.mean(apart), "nats", ""))
    return made


def main() -> None:
    exact = []
    for what, contexts in {"chats": chats(64), "critiques": critiques(16)}.items():
        rows = token_ids(contexts)
        exact.append((what, rows, plain(rows, torch.float32, size=8, how=GREEDY)[1]))
    made = []
    for dtype in dict.fromkeys([machine.best_dtype(), torch.float32]):
        int8 = Int8Model("int8", BASE, dtype=dtype)
        made += [*speed(dtype, int8), *lost(f"8 bits, else {dtype}", int8, exact)]
        if dtype != torch.float32:
            made += lost(str(dtype), ours(dtype), exact)
    report("int8", made)


if __name__ == "__main__":
    main()
