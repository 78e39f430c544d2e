"""Two answers of the SL-CAI model to one prompt: what the feedback model chooses between (FB-1, FB-2)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Comparison, Prompt
from constitutional_ai.seeding import seed_of


async def compare(prompt: Prompt, *, number: int, model: Model, sampling: Sampling, seed: int) -> Comparison:
    """Pair ``number`` of answers to a prompt, sampled apart. Two equal answers are kept: their label says 0.5."""
    name = f"{prompt.id}.{number}"
    draws = [replace(sampling, seed=seed_of(seed, "compare", name, side)) for side in ("a", "b")]
    a, b = await asyncio.gather(*[model.generate(prompt.conversation, draw) for draw in draws])
    if not (a.text and b.text):
        raise EmptyAnswer("the model said nothing")
    return Comparison(name, prompt, a, b)
