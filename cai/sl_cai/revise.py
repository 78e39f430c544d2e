"""Critiques and revisions: the supervised half of the method (section 3.1; SL-5 to SL-14).

A response is criticised and rewritten under a principle drawn anew at each round; the revision then takes the
response's place, and earlier critiques are forgotten (SL-7).

Ours, not the paper's: ``restate`` asks the prompt again with the revision request in it, for models too small to
criticise themselves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from cai.constitution import Constitution, Principle, draw
from cai.models.model import Model, Sampling
from cai.records import Completion, Response, Revision, RevisionChain
from cai.seeding import rng, seed_of
from cai.sl_cai import requests
from cai.sl_cai.respond import say

Style = Literal["critiqued", "direct", "restate"]


async def revise(
    response: Response,
    *,
    model: Model,
    constitution: Constitution,
    rounds: int,
    style: Style,
    sampling: Sampling,
    seed: int,
) -> RevisionChain:
    """``rounds`` revisions of one response; the paper makes 4 (SL-8). The chain's id is the response's."""
    chain = RevisionChain(response.id, constitution.digest, response)
    for number in range(1, rounds + 1):
        principle = draw(constitution.for_revision, rng(seed, chain.id, "principle", number))
        chain = chain.revised_by(
            await revise_once(chain, principle, model, style, sampling, seed_of(seed, chain.id, number))
        )
    return chain


async def revise_once(
    chain: RevisionChain, principle: Principle, model: Model, style: Style, sampling: Sampling, seed: int
) -> Revision:
    conversation, answer, fmt = chain.initial.prompt.conversation, chain.answer, model.format
    if fmt == "plain":
        sampling = replace(sampling, stop=requests.STOPS)
    wanted = principle.revision or ""
    if style == "restate":
        context = requests.to_answer_again(conversation, wanted)
        return Revision(principle.name, None, await say(model, context, sampling, seed, "restate"))
    critique: Completion | None = None
    if style == "critiqued" and principle.critique:
        ask = requests.to_critique(conversation, answer, principle.critique, fmt)
        critique = await say(model, ask, sampling, seed, "critique")
    said = (principle.critique or "", critique.text) if critique else None
    again = requests.to_revise(conversation, answer, said, wanted, fmt)
    return Revision(principle.name, critique, await say(model, again, sampling, seed, "revise"))
