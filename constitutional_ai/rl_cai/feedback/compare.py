"""Make the pairs that the feedback model compares: two samples (FB-1, FB-2), or an answer and its revision."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Comparison, Prompt, RevisionChain
from constitutional_ai.seeding import rng, seed_of


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


async def compare_revision(chain: RevisionChain, *, seed: int) -> Comparison:
    """Return the pair of a chain's first response and its last sound revision, in random order.

    Which is better is for the feedback model to say (pitfall 1). Ours, not the paper's: where most samples of a small
    model agree on refusing or on complying, few pairs tell the two apart.
    """
    name, revised = f"{chain.id}.revised", chain.sound_revisions[-1].revised
    a, b = rng(seed, "compare", name).sample([chain.initial.completion, revised], 2)
    return Comparison(name, chain.initial.prompt, a, b)
