"""Label which of two answers a feedback model finds better under a principle (section 4.1; FB-3 to FB-8).

For each comparison a principle is drawn from the constitution (FB-6). The question shows both answers as options (A)
and (B), and the softmax of the two letters' log-probabilities is P(the answer shown first is better) (FB-5). The paper
is silent on the order (FB-8): we ask in both orders, or draw one. The mean over all questions is the soft label; with
principles of several ranks, it is that of ``decided_by_rank``.

This is the method ``multiple_choice``. ``chain_of_thought`` is the paper's too. ``votes``, for models that give no
log-probabilities, ``likelihood``, for small models, and ``decision``, for servers with a decision endpoint, are ours.
Each method is a module of this package.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence

from constitutional_ai.constitutions.constitution import Constitution, Principle, applying_to, race
from constitutional_ai.models.model import Format, Model
from constitutional_ai.records import Comparison, PreferenceLabel, Side
from constitutional_ai.rl_cai.feedback.chain_of_thought import ChainOfThought
from constitutional_ai.rl_cai.feedback.decision import Decision
from constitutional_ai.rl_cai.feedback.likelihood import Likelihood
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod, FeedbackQuestion
from constitutional_ai.rl_cai.feedback.multiple_choice import MultipleChoice
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.votes import Votes
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots
from constitutional_ai.seeding import rng, seed_of

METHODS: dict[str, FeedbackMethod] = {
    method.name: method for method in (MultipleChoice(), ChainOfThought(), Votes(), Likelihood(), Decision())
}
"""The feedback methods by their names in a recipe's ``feedback.method``."""


async def label(
    comparison: Comparison,
    *,
    model: Model,
    constitution: Constitution,
    settings: Feedback,
    seed: int,
    few_shots: FewShots | None = None,
    as_given: bool = False,
    drawn: Sequence[Principle] | None = None,
) -> PreferenceLabel:
    """Return the soft label of one comparison: P(a is better), averaged over its questions.

    In the plain format, ``few_shots`` precede every question (FB-7, FB-12). ``as_given`` shows a first and uses no
    other order (EV-1). ``drawn`` are the principles to ask under; None draws them (FB-6). Raises RecordError if a
    question gets no readable answer, which never becomes a label.
    """
    method = METHODS[settings.method]
    questions = list(
        questions_of(
            comparison,
            constitution=constitution,
            settings=settings,
            fmt=settings.format_for(model),
            seed=seed,
            few_shots=few_shots,
            as_given=as_given,
            drawn=drawn,
        )
    )
    judgements = await asyncio.gather(*[method.judge(question, model, settings) for question in questions])
    by_rank: dict[int, list[float]] = {}
    for question, judgement in zip(questions, judgements, strict=True):
        by_rank.setdefault(question.principle.rank, []).append(judgement.probability_a)
    soft = method.soft_label(
        decided_by_rank([sum(of) / len(of) for _, of in sorted(by_rank.items())]), settings
    )
    return PreferenceLabel(comparison.id, constitution.digest, comparison, method.name, soft, tuple(judgements))


def draw_principles(
    principles: Sequence[Principle], settings: Feedback, draws: random.Random
) -> Sequence[Principle]:
    """Return as many draws of a principle as the settings say (FB-6), from each rank; or all principles."""
    if settings.principles == "all":
        return principles
    ranks = [[p for p in principles if p.rank == rank] for rank in sorted({p.rank for p in principles})]
    starts = [draws.random() for _ in range(settings.principles)]
    return [race(of_rank, start) for start in starts for of_rank in ranks]


def decided_by_rank(chances: Sequence[float]) -> float:
    """Return P(a is better), in [0, 1], given that of each rank, the highest first. Ours, not the paper's.

    A chance p is as good as a decision with probability |2p − 1|, and a coin flip otherwise. Where a rank would flip a
    coin, the ranks below decide. So one half overrules nothing, certainty everything, and nothing jumps between.

    >>> decided_by_rank([0.75]), decided_by_rank([0.5, 0.9]), decided_by_rank([1.0, 0.1])
    (0.75, 0.9, 1.0)
    >>> round(decided_by_rank([0.51, 0.95]), 3), round(decided_by_rank([0.95, 0.05]), 3)
    (0.951, 0.905)
    """
    *above, label = chances
    for chance in reversed(above):
        decision = abs(2 * chance - 1)
        label = decision * (chance > 0.5) + (1 - decision) * label
    return label


def questions_of(
    comparison: Comparison,
    *,
    constitution: Constitution,
    settings: Feedback,
    fmt: Format,
    seed: int,
    few_shots: FewShots | None = None,
    as_given: bool = False,
    drawn: Sequence[Principle] | None = None,
) -> Iterator[FeedbackQuestion]:
    """Yield the questions that ``label`` asks a model of format ``fmt``, in the order of the label's judgements.

    There is one for each drawn principle (FB-6), order (FB-8) and chain of thought (FB-15).
    """
    method = METHODS[settings.method]
    principles = applying_to(comparison.prompt, method.principles(constitution))
    examples = unrevised = ""
    if few_shots is not None and fmt == "plain":  # all questions share this prefix
        examples = method.worked_examples(few_shots, principles, rng(seed, "few shots", comparison.id))
        unrevised = method.unrevised(few_shots)
    draws = rng(seed, "label", comparison.id)
    if drawn is None:
        drawn = draw_principles(principles, settings, draws)
    for number, principle in enumerate(drawn):
        orders: tuple[Side, ...] = ("a",)
        if method.has_order and not as_given:
            orders = ("a", "b") if settings.both_orders else (draws.choice(("a", "b")),)
        for first in orders:
            shown = comparison if first == "a" else comparison.swapped()
            for repeat in range(method.repeats(settings)):
                own_seed = seed_of(seed, comparison.id, number, first, repeat)
                yield FeedbackQuestion(principle, first, shown, examples, own_seed, unrevised)


def calls_per_comparison(settings: Feedback, constitution: Constitution) -> int:
    """Return the number of model calls that one label takes."""
    method = METHODS[settings.method]
    principles = method.principles(constitution)
    ranks = len({principle.rank for principle in principles})
    drawn = len(principles) if settings.principles == "all" else settings.principles * ranks
    orders = 2 if method.has_order and settings.both_orders else 1
    return drawn * orders * method.repeats(settings) * method.calls(settings)


def has_order(label: PreferenceLabel) -> bool:
    """Return whether the questions showed both answers in an order. An unknown method counts as having one."""
    method = METHODS.get(label.method)
    return method is None or method.has_order
