"""Sequences that the tests of the engine use, and what plain forward passes make of them."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from constitutional_ai.engine.sampling import Decoding
from constitutional_ai.engine.sequence_engine import SequenceEngine
from constitutional_ai.models.local.padded import PaddedGenerate
from tests.shape import SHAPE

X86 = platform.machine() in {"x86_64", "AMD64"}
BFLOAT16 = X86 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Whether the decoder computes in bfloat16 here: oneDNN refuses on processors without AVX-512 or AVX-NE-CONVERT."""
PREFIX = [5 + n * 7 % 280 for n in range(150)]
SEQUENCES = [PREFIX + [5 + (n + 3) * m % 290 for m in range(n * 5 % 23 + 1)] for n in range(12)]
CONTINUATIONS = [[7], [9, 11, 12], [9, 11, 13, 200, 17]]
TINY = {**SHAPE, "vocab_size": 300, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}


def llama(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def greedy(count: int, steps: int = 12) -> Decoding:
    return Decoding([0] * count, 0.0, steps, ())


def completions(
    engine: SequenceEngine | PaddedGenerate, rows: list[list[int]], how: Decoding | None = None
) -> list[list[int]]:
    return engine.generate(rows, how or greedy(len(rows)), threading.Event())


ROUNDING = 2e-4
"""The difference that rounding makes in float32, at most: in probabilities summed up to a token, and in a logit, as a
share of the largest. Processors add in different orders, and so do batches of different shapes.
"""


def says(
    model: Any,
    row: list[int],
    text: list[int],
    how: Decoding | None = None,
    number: int = 0,
    *,
    ends: Collection[int] | Callable[[list[int]], bool] = (2,),
    rounding: float = ROUNDING,
) -> bool:
    """Whether plain forward passes of ``model`` say ``text`` after ``row``, up to rounding, and end it where it ends.

    Two texts are not compared: a draw that falls on the border between two tokens goes to either of them, and all that
    follows is then another text. Each token must be one that the draw of the seed with that ``number`` names (at
    temperature 0: the largest logit), after the tokens before it.
    """
    how = how or greedy(number + 1)
    ended = ends if callable(ends) else lambda tokens: tokens[-1] in ends
    if any(ended(text[:n]) for n in range(1, len(text))) or not (ended(text) or len(text) == how.max_tokens):
        return False
    with torch.no_grad():
        logits_SV = model(torch.tensor([row + text])).logits[0, len(row) - 1 : -1].double()
    tokens_S1 = torch.tensor(text)[:, None]
    if how.temperature == 0:
        behind_S = logits_SV.amax(-1) - logits_SV.gather(1, tokens_S1)[:, 0]
        return bool((behind_S <= rounding * logits_SV.abs().amax(-1)).all())
    probabilities_SV = (logits_SV / how.temperature).softmax(-1)
    up_to_S = probabilities_SV.cumsum(-1).gather(1, tokens_S1)[:, 0]
    before_S = up_to_S - probabilities_SV.gather(1, tokens_S1)[:, 0]
    drawn_S = torch.rand(len(text), generator=torch.Generator().manual_seed(how.seeds[number]))
    return bool(((before_S - rounding <= drawn_S) & (drawn_S <= up_to_S + rounding)).all())


def all_say(
    model: Any, rows: list[list[int]], texts: list[list[int]], how: Decoding | None = None, **more: Any
) -> bool:
    """Whether each row says its text."""
    how = how or greedy(len(rows))
    each = enumerate(zip(rows, texts, strict=True))
    return all(says(model, row, text, how, number, **more) for number, (row, text) in each)


LEAD = 1e-3
"""A share of the largest logit, and far more than two engines round apart in float32: such a lead is certain."""


def lead(model: Any, row: list[int], tokens: int) -> float:
    """The least lead of the likeliest token among so many that plain passes say after ``row``, or up to an end."""
    leads, said = [], list(row)
    with torch.no_grad():
        while len(leads) < tokens and said[-1:] != [model.config.eos_token_id]:
            logits = model(torch.tensor([said])).logits[0, -1]
            first, second = logits.topk(2).values
            leads.append(float((first - second) / logits.abs().max()))
            said.append(int(logits.argmax()))
    return min(leads)


def nearly_all_alike(some: list[Any], others: list[Any]) -> bool:
    """But for one: in one text of thousands, a draw lies on the border between two tokens, and falls to either."""
    return sum(one != other for one, other in zip(some, others, strict=True)) <= 1
