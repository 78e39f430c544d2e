"""Sampled votes: feedback from a model that gives no log-probabilities, as most hosted chat models.

Ours, not the paper's: the share of sampled answers that name an option stands in for its probability. It is coarser
than FB-5, and its labels say so (``method`` is ``votes``). An answer that names no option, or both, is no vote.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Literal, NamedTuple

from constitutional_ai.errors import RefusedAnswer, UnreadableAnswer
from constitutional_ai.models.model import Context, Format, Model, Sampling
from constitutional_ai.records import Comparison, Message, Usage
from constitutional_ai.rl_cai.feedback import questions
from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge
from constitutional_ai.seeding import seed_of

OPTION = re.compile(r"\(([AB])\)|^\W*([AB])(?![\w'])")
READABLE_SHARE = 0.5
"""Of the votes that must be readable; with fewer there is no label."""


class Voted(NamedTuple):
    first: float
    """Share of the readable votes that are for the answer shown as (A)."""
    usage: Usage
    """Of all votes, readable or not."""


async def vote(
    comparison: Comparison,
    principle: str,
    model: Model,
    fmt: Format,
    sampling: Sampling,
    count: int,
    few_shots: str = "",
) -> Voted:
    """So many sampled votes on a comparison.

    Raises UnreadableAnswer when too few votes can be read, and RefusedAnswer if most of the others refuse.
    """
    asked = to_vote(comparison, principle, fmt, few_shots)
    if fmt == "plain":  # a base model goes on with the next question, whose letters would spoil this vote
        sampling = replace(sampling, stop=("\n",))
    draws = [replace(sampling, seed=seed_of(sampling.seed, number)) for number in range(count)]
    said = await asyncio.gather(*[model.generate(asked, draw) for draw in draws])
    votes = [read for read in (read_vote(s.text) for s in said) if read is not None]
    if len(votes) < READABLE_SHARE * count:
        refusals = sum(read_vote(s.text) is None and refuses_to_judge(s.text) for s in said)
        kind = RefusedAnswer if 2 * refusals > count - len(votes) else UnreadableAnswer
        raise kind(f"only {len(votes)} of {count} votes name one option; the first says {said[0].text[:80]!r}")
    cost = Usage(sum(s.prompt_tokens for s in said), sum(s.completion_tokens for s in said))
    return Voted(votes.count("A") / len(votes), cost)


def to_vote(comparison: Comparison, principle: str, fmt: Format, few_shots: str = "") -> Context:
    conversation, a, b = comparison.prompt.conversation, comparison.a.text, comparison.b.text
    if fmt == "plain":
        return questions.multiple_choice(conversation, principle, a, b, fmt, few_shots)
    asked = questions.question(conversation, principle, a, b)
    # A chat on a server cannot be gone on with in the assistant's own words, so it is told how to answer.
    return (Message("user", f"{asked}\n\nAnswer with (A) or (B) and nothing else."),)


def read_vote(text: str) -> Literal["A", "B"] | None:
    """The one option that an answer names.

    >>> read_vote("(B)"), read_vote("B."), read_vote("A good question"), read_vote("(A) or (B)")
    ('B', 'B', None, None)
    """
    named = {bracketed or bare for bracketed, bare in OPTION.findall(text.strip())}
    if named == {"A"} and not re.match(r"A [a-z]", text.strip()):  # "A good question" is no vote
        return "A"
    return "B" if named == {"B"} else None
