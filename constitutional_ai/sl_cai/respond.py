"""Sampling answers to prompts: the initial responses of the paper's first figure (SL-5), and pairs later."""

from __future__ import annotations

from dataclasses import replace

from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.records import Completion, Prompt, Response
from constitutional_ai.seeding import seed_of


async def respond(prompt: Prompt, *, number: int, model: Model, sampling: Sampling, seed: int) -> Response:
    """Answer ``number`` to a prompt. No few-shot prefix here: it would make the answer less harmful (SL-12)."""
    name = f"{prompt.id}.{number}"
    completion = await say(model, prompt.conversation, sampling, seed, "respond", name)
    return Response(name, prompt, completion)


async def sample(model: Model, context: Context, sampling: Sampling, *draw: object) -> Completion:
    """One completion whose draw is named by ``draw``; it may be empty."""
    return await model.generate(context, replace(sampling, seed=seed_of(*draw)))


async def say(model: Model, context: Context, sampling: Sampling, *draw: object) -> Completion:
    """As ``sample``. Raises EmptyAnswer when the model says nothing."""
    completion = await sample(model, context, sampling, *draw)
    if not completion.text:
        raise EmptyAnswer("the model said nothing")
    return completion
