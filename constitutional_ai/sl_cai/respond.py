"""Sample responses to prompts: the initial responses (SL-5), and later the pairs for comparison (FB-2)."""

from __future__ import annotations

from dataclasses import replace

from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.records import Completion, Prompt, Response
from constitutional_ai.seeding import seed_of


async def respond(prompt: Prompt, number: int, *, model: Model, sampling: Sampling, seed: int) -> Response:
    """Sample response ``number`` to a prompt. Raises EmptyAnswer when it is empty.

    The prompt has no few-shot examples, which would make the response less harmful (SL-12).
    """
    name = f"{prompt.id}.{number}"
    completion = await sample_text(model, prompt.conversation, sampling, seed, "respond", name)
    return Response(name, prompt, completion)


async def sample(model: Model, context: Context, sampling: Sampling, *draw: object) -> Completion:
    """Sample one completion, which may be empty. Its seed is the hash of ``draw``."""
    return await model.generate(context, replace(sampling, seed=seed_of(*draw)))


async def sample_text(model: Model, context: Context, sampling: Sampling, *draw: object) -> Completion:
    """Sample one completion as ``sample`` does. Raises EmptyAnswer when it is empty."""
    completion = await sample(model, context, sampling, *draw)
    if not completion.text:
        raise EmptyAnswer("the model returned no text")
    return completion
