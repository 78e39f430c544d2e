"""Criticise and revise responses (section 3.1; SL-5 to SL-14).

In each round a principle is drawn, which consists of a critique request and a revision request. The model answers the
critique request with a critique of the response, and the revision request with a revision. The next round starts from
the revision, and earlier critiques are dropped (SL-7).

The style ``direct`` leaves the critique out (SL-14). The style ``restate`` is ours: it repeats the prompt with the
revision request, for models too small to criticise themselves. So is ``prompted``, a baseline: the prompt is answered
again with the whole constitution as the system message, in the model's own format.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from constitutional_ai.constitutions.constitution import Constitution, Principle, applying_to, draw
from constitutional_ai.constitutions.in_context import as_instructions
from constitutional_ai.models.instructed import InstructedModel
from constitutional_ai.models.model import Context, Format, Model
from constitutional_ai.records import Completion, Response, Revision, RevisionChain
from constitutional_ai.seeding import rng, seed_of
from constitutional_ai.sl_cai import critique_requests
from constitutional_ai.sl_cai.clean import cleaned
from constitutional_ai.sl_cai.respond import sample, sample_text
from constitutional_ai.sl_cai.settings import Revisions, Style

WHOLE = "the whole constitution"
"""What stands for the principle of a revision in the style ``prompted``."""
Write = Callable[[str, Context], Awaitable[Completion]]
"""A function that samples a completion of a context for a purpose: critique, revise or restate."""


async def revise(
    response: Response,
    *,
    model: Model,
    constitution: Constitution,
    settings: Revisions,
    seed: int,
    few_shots: str = "",
) -> RevisionChain:
    """Revise one response ``settings.rounds`` times; the paper does so 4 times (SL-8).

    The chain's id is the response's. ``few_shots`` are put before every request in the plain format (SL-11). If a
    revision has a fault (``clean.py``), the next round revises the answer before it. Raises EmptyAnswer when a critique
    is empty.
    """
    chain = RevisionChain(response.id, constitution.digest, response)
    fmt = model.format if settings.format == "auto" else settings.format
    principles = applying_to(response.prompt, constitution.for_revision)

    async def write(number: int, purpose: str, context: Context) -> Completion:
        sampling = settings.sampling
        if isinstance(context, str):
            context, sampling = few_shots + context, replace(sampling, stop=critique_requests.STOPS)
        # An empty critique is a failure; an empty revision is counted by the clean-up.
        draw_completion = sample_text if purpose == "critique" else sample
        return await draw_completion(model, context, sampling, seed_of(seed, chain.id, number), purpose)

    instructed = InstructedModel(model, as_instructions(constitution))
    for number in range(1, settings.rounds + 1):
        if settings.style == "prompted":
            seeded = seed_of(seed, chain.id, number)
            answer = await sample(
                instructed, response.prompt.conversation, settings.sampling, seeded, "prompted"
            )
            chain = chain.revised_by(cleaned(Revision(WHOLE, None, answer), chain.answer, settings.clean))
            continue
        principle = draw(principles, rng(seed, chain.id, "principle", number))
        revision = await _revision(chain, principle, settings.style, fmt, partial(write, number))
        chain = chain.revised_by(cleaned(revision, chain.answer, settings.clean))
    return chain


async def _revision(
    chain: RevisionChain, principle: Principle, style: Style, fmt: Format, write: Write
) -> Revision:
    """Return the next revision of a chain, with its critique if the style has one."""
    conversation, answer, request = chain.initial.prompt.conversation, chain.answer, principle.revision or ""
    if style == "restate":
        again = critique_requests.to_answer_again(conversation, request)
        return Revision(principle.name, None, await write("restate", again))
    critique: Completion | None = None
    if style == "critiqued" and principle.critique:
        context = critique_requests.to_critique(conversation, answer, principle.critique, fmt)
        critique = await write("critique", context)
    criticism = (principle.critique or "", critique.text) if critique else None
    context = critique_requests.to_revise(conversation, answer, criticism, request, fmt)
    return Revision(principle.name, critique, await write("revise", context))
