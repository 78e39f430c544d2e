"""AI feedback: a feedback model says which of two answers is better under a principle (section 4.1; FB-3 to FB-8).

``multiple_choice`` is the paper's: the answers stand as options (A) and (B), and the label is the softmax of the
log-probabilities of the two whole continuations (FB-5). The paper is silent on order (FB-8): we draw it, or ask both.

``chain_of_thought`` lets the model reason first, and clamps the label (``rl_cai/feedback/chain_of_thought.py``).

``votes`` is ours, for models that give no log-probabilities (``rl_cai/feedback/votes.py``).

``likelihood`` is ours, for models too small for letters: which answer is the stronger evidence for an assistant that
lives by the principle, against one that breaks it? Its log-odds are
[log P(a | upheld) − log P(a | broken)] − [log P(b | upheld) − log P(b | broken)].
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from constitutional_ai.constitutions.constitution import Constitution, Principle, draw
from constitutional_ai.errors import UnreadableAnswer
from constitutional_ai.models.model import Format, Model, Sampling
from constitutional_ai.records import Comparison, Judgement, PreferenceLabel, Side
from constitutional_ai.rl_cai.feedback import questions as requests
from constitutional_ai.rl_cai.feedback.chain_of_thought import reason
from constitutional_ai.rl_cai.feedback.votes import vote
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots
from constitutional_ai.seeding import rng, seed_of

Method = Literal["multiple_choice", "chain_of_thought", "votes", "likelihood"]


THINKING = Sampling(max_tokens=256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How the feedback model is asked."""

    method: Method = "multiple_choice"
    fmt: Format = "chat"
    both_orders: bool = True
    as_given: bool = False
    """In one order only, a first: for questions whose order is their own (EV-1)."""
    principles: int | Literal["all"] = 1
    """How many are drawn for a comparison; the paper draws 1 (FB-6)."""
    few_shots: FewShots | None = None
    """Stand before every question in the plain format (FB-7, FB-12)."""
    chains: int = 1
    """Chains of thought averaged for each question; the paper averages 5 in evaluation (FB-15)."""
    clamp: tuple[float, float] = (0.4, 0.6)
    """Where labels of chain_of_thought are kept (FB-13); (0, 1) leaves them."""
    reasoning: Sampling = THINKING
    """Of chains of thought, and of votes."""
    votes: int = 8


async def label(
    comparison: Comparison, *, model: Model, constitution: Constitution, asking: Asking, seed: int
) -> PreferenceLabel:
    """The soft label of one comparison, averaged over its questions.

    Raises UnreadableAnswer when the model's probabilities are not numbers: such an answer never becomes a label.
    """
    questions = _questions(comparison, constitution, asking, seed)
    judgements = await asyncio.gather(*[_judge(question, model, asking) for question in questions])
    mean = sum(j.probability_a for j in judgements) / len(judgements)
    if asking.method == "chain_of_thought":  # clamped, not rescaled (pitfall 4)
        mean = min(max(mean, asking.clamp[0]), asking.clamp[1])
    return PreferenceLabel(
        comparison.id, constitution.digest, comparison, asking.method, mean, tuple(judgements)
    )


class _Question(NamedTuple):
    principle: Principle
    first: Side
    shown: Comparison
    """With ``first`` as its answer a."""
    few_shots: str
    seed: int


def _questions(
    comparison: Comparison, constitution: Constitution, asking: Asking, seed: int
) -> list[_Question]:
    draws = rng(seed, "label", comparison.id)
    by_likelihood, thinks = asking.method == "likelihood", asking.method == "chain_of_thought"
    known = constitution.for_likelihood if by_likelihood else constitution.for_preference
    every = asking.principles == "all"
    principles = known if every else [draw(known, draws) for _ in range(int(asking.principles))]
    few_shots = _few_shots(asking, known, rng(seed, "few shots", comparison.id))  # all share this beginning
    questions = []
    for number, principle in enumerate(principles):
        if by_likelihood or asking.as_given:  # by likelihood each answer is scored alone, and has no order
            orders: tuple[Side, ...] = ("a",)
        else:
            orders = ("a", "b") if asking.both_orders else (draws.choice(("a", "b")),)
        for first in orders:
            shown = comparison if first == "a" else comparison.swapped()
            for chain in range(asking.chains if thinks else 1):
                one = seed_of(seed, comparison.id, number, first, chain)
                questions.append(_Question(principle, first, shown, few_shots, one))
    return questions


def _few_shots(asking: Asking, principles: Sequence[Principle], draws: random.Random) -> str:
    if asking.few_shots is None or asking.fmt != "plain" or asking.method == "likelihood":
        return ""
    shots = asking.few_shots
    thinks = asking.method == "chain_of_thought"
    return (shots.chain_of_thought if thinks else shots.multiple_choice)(principles, draws)


async def _judge(question: _Question, model: Model, asking: Asking) -> Judgement:
    principle, first, shown, before, seed = question
    wanted, sampling = principle.preference or "", replace(asking.reasoning, seed=seed)
    match asking.method:
        case "likelihood":
            return Judgement(principle.name, first, await likelihood(shown, principle, model, asking.fmt))
        case "multiple_choice":
            said = await multiple_choice(shown, principle, model, asking.fmt, before)
            return Judgement(principle.name, first, said)
        case "votes":
            voted = await vote(shown, wanted, model, asking.fmt, sampling, asking.votes, before)
            return Judgement(principle.name, first, voted.first, None, *voted.usage)
        case "chain_of_thought":
            thought = await reason(shown, wanted, model, asking.fmt, sampling, before)
            said = softmax_first(thought.first, thought.second)
            return Judgement(principle.name, first, said, thought.text, *thought.usage)


async def multiple_choice(
    comparison: Comparison, principle: Principle, model: Model, fmt: Format, few_shots: str = ""
) -> float:
    """P(the answer shown as (A) is better) (FB-4, FB-5)."""
    a, b = comparison.a.text, comparison.b.text
    context = requests.multiple_choice(
        comparison.prompt.conversation, principle.preference or "", a, b, fmt, few_shots
    )
    first, second = await model.score(context, requests.CHOICES)
    return softmax_first(first, second)


async def likelihood(comparison: Comparison, principle: Principle, model: Model, fmt: Format) -> float:
    """P(a is better) from the two answers' log-likelihood ratios under the principle's two assistants."""
    conversation, space = comparison.prompt.conversation, " " if fmt == "plain" else ""
    answers = [space + comparison.a.text, space + comparison.b.text]
    upheld, broken = await asyncio.gather(
        model.score(requests.spoken_by(principle.upheld or "", conversation, fmt), answers),
        model.score(requests.spoken_by(principle.broken or "", conversation, fmt), answers),
    )
    return softmax_first(upheld[0] - broken[0], upheld[1] - broken[1])


def softmax_first(first: float, second: float) -> float:
    """e^first / (e^first + e^second), without overflow."""
    if not (math.isfinite(first) and math.isfinite(second)):
        raise UnreadableAnswer(f"the model's log-probabilities are {first} and {second}")
    return 1.0 / (1.0 + math.exp(min(700.0, second - first)))
