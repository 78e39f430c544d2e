"""Sample two answers of the SL-CAI model to one prompt, for the feedback model to compare (FB-1, FB-2)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Comparison, Prompt
from constitutional_ai.seeding import seed_of


async def compare(prompt: Prompt, number: int, *, model: Model, sampling: Sampling, seed: int) -> Comparison:
    """Sample both answers of pair ``number`` of a prompt, each with its own seed.

    Equal answers are kept: their label is 0.5. Raises EmptyAnswer if an answer is empty.
    """
    name = f"{prompt.id}.{number}"
    draws = [replace(sampling, seed=seed_of(seed, "compare", name, side)) for side in ("a", "b")]
    a, b = await asyncio.gather(*[model.generate(prompt.conversation, draw) for draw in draws])
    if not (a.text and b.text):
        raise EmptyAnswer("the model returned an empty answer")
    return Comparison(name, prompt, a, b)
