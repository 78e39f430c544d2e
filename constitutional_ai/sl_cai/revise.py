"""Critiques and revisions: the supervised half of the method (section 3.1; SL-5 to SL-14).

A response is criticised and rewritten under a principle drawn anew at each round; the revision then takes the
response's place, and earlier critiques are forgotten (SL-7).

Ours, not the paper's: ``restate`` asks the prompt again with the revision request in it, for models too small to
criticise themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from constitutional_ai.constitutions.constitution import Constitution, Principle, draw
from constitutional_ai.models.model import Context, Format, Model, Sampling
from constitutional_ai.records import Completion, Response, Revision, RevisionChain
from constitutional_ai.seeding import rng, seed_of
from constitutional_ai.sl_cai import critique_requests
from constitutional_ai.sl_cai.clean import Rule, cleaned
from constitutional_ai.sl_cai.respond import sample, say

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
    fmt: Format | None = None,
    few_shots: str = "",
    clean: Collection[Rule] = (),
) -> RevisionChain:
    """``rounds`` revisions of one response; the paper makes 4 (SL-8). The chain's id is the response's.

    ``fmt`` is the model's own unless it is given. ``few_shots`` stand before every request in the plain format (SL-11).
    Revisions are cleaned by the rules ``clean``; from one with a fault, the chain goes on with the answer before it.
    """
    chain = RevisionChain(response.id, constitution.digest, response)
    for number in range(1, rounds + 1):
        principle = draw(constitution.for_revision, rng(seed, chain.id, "principle", number))
        asked = _Asked(model, fmt or model.format, few_shots, sampling, seed_of(seed, chain.id, number))
        revision = await revise_once(chain, principle, style, asked)
        chain = chain.revised_by(cleaned(revision, chain.answer, clean))
    return chain


@dataclass(frozen=True, slots=True)
class _Asked:
    """The model, and how it is asked."""

    model: Model
    fmt: Format
    few_shots: str
    sampling: Sampling
    seed: int

    async def __call__(self, context: Context, what: str) -> Completion:
        sampling = self.sampling
        if isinstance(context, str):
            context, sampling = self.few_shots + context, replace(sampling, stop=critique_requests.STOPS)
        ask = say if what == "critique" else sample  # an empty revision is a matter of its cleaning
        return await ask(self.model, context, sampling, self.seed, what)


async def revise_once(chain: RevisionChain, principle: Principle, style: Style, asked: _Asked) -> Revision:
    conversation, answer, wanted = chain.initial.prompt.conversation, chain.answer, principle.revision or ""
    if style == "restate":
        return Revision(
            principle.name,
            None,
            await asked(critique_requests.to_answer_again(conversation, wanted), "restate"),
        )
    critique: Completion | None = None
    if style == "critiqued" and principle.critique:
        context = critique_requests.to_critique(conversation, answer, principle.critique, asked.fmt)
        critique = await asked(context, "critique")
    said = (principle.critique or "", critique.text) if critique else None
    again = critique_requests.to_revise(conversation, answer, said, wanted, asked.fmt)
    return Revision(principle.name, critique, await asked(again, "revise"))
