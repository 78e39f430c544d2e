"""Sample responses to prompts: the initial responses of the paper's first figure (SL-5), and pairs later (FB-2)."""

from __future__ import annotations

from dataclasses import replace

from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.records import Completion, Prompt, Response
from constitutional_ai.seeding import seed_of


async def respond(prompt: Prompt, *, number: int, model: Model, sampling: Sampling, seed: int) -> Response:
    """Sample response ``number`` to a prompt. Raises EmptyAnswer when it is empty.

    No few-shot examples stand before it: they would make the response less harmful (SL-12).
    """
    name = f"{prompt.id}.{number}"
    completion = await sample_text(model, prompt.conversation, sampling, seed, "respond", name)
    return Response(name, prompt, completion)


async def sample(model: Model, context: Context, sampling: Sampling, *draw: object) -> Completion:
    """Sample one completion, which may be empty; ``draw`` names the draw and so fixes the seed."""
    return await model.generate(context, replace(sampling, seed=seed_of(*draw)))


async def sample_text(model: Model, context: Context, sampling: Sampling, *draw: object) -> Completion:
    """Sample one completion as ``sample`` does. Raises EmptyAnswer when it is empty."""
    completion = await sample(model, context, sampling, *draw)
    if not completion.text:
        raise EmptyAnswer("the model said nothing")
    return completion
