"""AI feedback: a feedback model says which of two answers is better under a principle (section 4.1; FB-3 to FB-8).

``multiple_choice`` is the paper's: the answers stand as options (A) and (B), and the label is the softmax of the
log-probabilities of the two whole continuations (FB-5). The paper is silent on order (FB-8): we draw it, or ask both.

``likelihood`` is ours, for models too small for letters: which answer is the stronger evidence for an assistant that
lives by the principle, against one that breaks it? Its log-odds are
[log P(a | upheld) − log P(a | broken)] − [log P(b | upheld) − log P(b | broken)].
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import Literal, get_args

from cai.constitution import Constitution, Principle, draw
from cai.errors import UnreadableAnswer
from cai.models.model import Format, Model
from cai.records import Comparison, Judgement, PreferenceLabel, Side
from cai.rl_cai import requests
from cai.seeding import rng

Method = Literal["multiple_choice", "likelihood"]
METHODS: tuple[str, ...] = get_args(Method)


async def label(
    comparison: Comparison,
    *,
    model: Model,
    constitution: Constitution,
    method: Method,
    both_orders: bool,
    fmt: Format,
    principles: int,
    seed: int,
) -> PreferenceLabel:
    """The soft label of one comparison, averaged over its questions.

    ``principles`` is how many are drawn (the paper draws 1, FB-6). Raises UnreadableAnswer when the model's
    probabilities are not numbers: such an answer never becomes a label.
    """
    draws = rng(seed, "label", comparison.id)
    known = constitution.for_preference if method == "multiple_choice" else constitution.for_likelihood
    asked = [draw(known, draws) for _ in range(principles)]
    judged = await asyncio.gather(
        *[_judge(comparison, p, model, method, fmt, _orders(both_orders, method, draws)) for p in asked]
    )
    judgements = tuple(j for group in judged for j in group)
    mean = sum(j.probability_a for j in judgements) / len(judgements)
    return PreferenceLabel(comparison.id, constitution.digest, comparison, method, mean, judgements)


def _orders(both: bool, method: Method, draws: random.Random) -> tuple[Side, ...]:
    if method == "likelihood":  # each answer is scored alone: there is no order
        return ("a",)
    return ("a", "b") if both else (draws.choice(("a", "b")),)


async def _judge(
    comparison: Comparison,
    principle: Principle,
    model: Model,
    method: Method,
    fmt: Format,
    orders: tuple[Side, ...],
) -> list[Judgement]:
    ask = multiple_choice if method == "multiple_choice" else likelihood
    shown = [comparison if first == "a" else comparison.swapped() for first in orders]
    probabilities = await asyncio.gather(*[ask(c, principle, model, fmt) for c in shown])
    return [Judgement(principle.name, first, p) for first, p in zip(orders, probabilities, strict=True)]


async def multiple_choice(comparison: Comparison, principle: Principle, model: Model, fmt: Format) -> float:
    """P(the answer shown as (A) is better) (FB-4, FB-5)."""
    context = requests.multiple_choice(
        comparison.prompt.conversation,
        principle.preference or "",
        comparison.a.text,
        comparison.b.text,
        fmt,
    )
    first, second = await model.score(context, requests.CHOICES)
    return softmax_first(first, second)


async def likelihood(comparison: Comparison, principle: Principle, model: Model, fmt: Format) -> float:
    """P(a is better) from the two answers' log-likelihood ratios under the principle's two assistants."""
    conversation, space = comparison.prompt.conversation, " " if fmt == "plain" else ""
    answers = [space + comparison.a.text, space + comparison.b.text]
    upheld, broken = await asyncio.gather(
        model.score(requests.spoken_by(principle.upheld or "", conversation, fmt), answers),
        model.score(requests.spoken_by(principle.broken or "", conversation, fmt), answers),
    )
    return softmax_first(upheld[0] - broken[0], upheld[1] - broken[1])


def softmax_first(first: float, second: float) -> float:
    """e^first / (e^first + e^second), without overflow."""
    if not (math.isfinite(first) and math.isfinite(second)):
        raise UnreadableAnswer(f"the model's log-probabilities are {first} and {second}")
    return 1.0 / (1.0 + math.exp(min(700.0, second - first)))
