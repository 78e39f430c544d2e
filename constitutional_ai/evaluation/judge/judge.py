"""How good is a feedback model on pairs that people have judged? (``cai judge``; FB-8, FB-9, pitfall 27.)

The paper plots its labels' calibration (figure 9), and is silent on position and length: a judge may like what stands
first, or what is longer. Pairs are judged as the pipeline labels, so chain_of_thought is measured after its clamp.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.data.lines import format_counts
from constitutional_ai.errors import (
    EmptyAnswer,
    InputError,
    RecordError,
    RefusedAnswer,
    UnreadableAnswer,
)
from constitutional_ai.metrics.calibration import (
    TIE,
    Bin,
    Claim,
    bins,
    brier,
    calibration_error,
    error_by_luck,
)
from constitutional_ai.metrics.intervals import mean, rate
from constitutional_ai.models.model import Model
from constitutional_ai.records import Comparison, Failure, GateAnswer, Metric, PreferenceLabel, Side
from constitutional_ai.rl_cai.feedback.label import METHODS, has_order, label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots

REFUSED, UNREADABLE = (RefusedAnswer.__name__,), (UnreadableAnswer.__name__, EmptyAnswer.__name__)
"""A failure carries the name of its error alone."""


async def judge(
    comparisons: Sequence[tuple[Comparison, Side]],
    *,
    model: Model,
    constitution: Constitution,
    settings: Feedback,
    seed: int,
    few_shots: FewShots | None = None,
    concurrency: int = 64,
    tell: Callable[[GateAnswer | Failure], None] = lambda made: None,
) -> list[GateAnswer | Failure]:
    """An answer or a failure for each comparison, in their order; ``tell`` hears of each as it is made.

    With each comparison comes the side that is better. As in a run, a RecordError is a failure and never a label, and
    any other error ends it all.
    """
    if not METHODS[settings.method].principles(constitution):
        raise InputError(f"constitution '{constitution.name}' has no principle for method {settings.method}.")
    free = asyncio.Semaphore(concurrency)

    async def one(comparison: Comparison, better: Side) -> GateAnswer | Failure:
        made: GateAnswer | Failure
        async with free:
            try:
                said = await label(
                    comparison,
                    model=model,
                    constitution=constitution,
                    settings=settings,
                    few_shots=few_shots,
                    seed=seed,
                )
                made = GateAnswer(comparison.id, said, better)
            except RecordError as error:
                made = Failure(comparison.id, type(error).__name__, str(error))
        tell(made)
        return made

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*each)) for each in comparisons]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # they die of one cause, and the user reads one sentence
    return [task.result() for task in tasks]


@dataclass(frozen=True, slots=True)
class JudgeReport:
    model: str
    agreement: Metric
    """Share of pairs in which the judge sides with people. A tie does not."""
    ties: Metric
    flips: Metric
    """Share of pairs whose winner changes with the order; None unless both orders were asked (FB-8)."""
    prefers_first: Metric
    """How often what is shown first wins, a tie half: a mean over pairs, as a pair's questions are not independent."""
    prefers_longer: Metric
    """Of the pairs that differ in length and are no tie, the share in which the judge's winner is the longer."""
    people_prefer_longer: Metric
    """The same of people, over the same pairs."""
    failed: Metric
    """Share of pairs without a label, for whatever reason."""
    refused: Metric
    """Share of pairs that the judge would not judge; None where it is not asked for words."""
    unreadable: Metric
    """Share of pairs where it said something else that is no answer, or nothing."""
    confidence: Metric
    """Mean probability of the winner."""
    brier: Metric
    """Mean squared error of P(a is better): 0.25 is always saying one half."""
    calibration_error: Metric
    """Mean distance of claimed and found over the bins, weighed by their counts (FB-9); it has no interval."""
    error_by_luck: Metric
    """What a perfectly calibrated judge with the same probabilities could expect: few pairs never lie on the line."""
    bins: tuple[Bin, ...]
    failures: Mapping[str, int]
    """How many, by kind of error."""
    unusable: Mapping[str, int]

    @property
    def metrics(self) -> list[Metric]:
        return [m for f in fields(self) if isinstance(m := getattr(self, f.name), Metric)]

    def __str__(self) -> str:
        a = self.agreement
        if a.value is None:
            return f"{self.model} judged no pair. {format_counts(self.failures)}".rstrip()
        return (
            f"{self.model} agrees with people in {a.value:.2f} of {a.count} pairs "
            f"(95 % interval {a.low:.2f} to {a.high:.2f})"
        )


def judge_report(
    model: str, made: Sequence[GateAnswer | Failure], unusable: Mapping[str, int] | None = None
) -> JudgeReport:
    answers = [x for x in made if isinstance(x, GateAnswer)]
    failures = Counter(x.error for x in made if isinstance(x, Failure))
    wins = [_win(x.probability_right) for x in answers]
    flips = [x.label.flipped for x in answers]
    first = [_first(x.label) for x in answers]
    unlike = [x for x, win in zip(answers, wins, strict=True) if win != 0.5 and _longer(x.label)]
    claims = [Claim(x.label.probability_a, x.better == "a") for x in answers]
    return JudgeReport(
        model=model,
        agreement=rate("agreement", model, [win == 1.0 for win in wins]),
        ties=rate("ties", model, [win == 0.5 for win in wins]),
        flips=rate("order_flips", model, [f for f in flips if f is not None]),
        prefers_first=mean("prefers_first", model, [f for f in first if f is not None]),
        prefers_longer=rate(
            "prefers_longer",
            model,
            [(x.label.probability_a > 0.5) == (_longer(x.label) == "a") for x in unlike],
        ),
        people_prefer_longer=rate(
            "people_prefer_longer", model, [x.better == _longer(x.label) for x in unlike]
        ),
        failed=rate("failed", model, [isinstance(x, Failure) for x in made]),
        refused=rate("refused", model, [] if _only_scores(answers) else _failed_by(made, REFUSED)),
        unreadable=rate("unreadable", model, _failed_by(made, UNREADABLE)),
        confidence=mean(
            "confidence", model, [max(x.probability_right, 1 - x.probability_right) for x in answers]
        ),
        brier=brier(model, claims),
        calibration_error=calibration_error(model, claims),
        error_by_luck=error_by_luck(model, claims),
        bins=bins(model, claims),
        failures=dict(failures),
        unusable=dict(unusable or {}),
    )


def _only_scores(answers: Sequence[GateAnswer]) -> bool:
    methods = [METHODS.get(x.label.method) for x in answers]
    return any(method is not None and not method.samples_text for method in methods)


def _failed_by(made: Sequence[GateAnswer | Failure], errors: tuple[str, ...]) -> list[bool]:
    return [isinstance(x, Failure) and x.error in errors for x in made]


def _win(probability: float) -> float:
    return 0.5 if abs(probability - 0.5) < TIE else float(probability > 0.5)


def _first(label: PreferenceLabel) -> float | None:
    """Share of a pair's questions that what is shown first wins; by likelihood nothing is."""
    if not has_order(label):
        return None
    wins = [_win(j.probability_first) for j in label.judgements]
    return sum(wins) / len(wins)


def _longer(label: PreferenceLabel) -> Side | None:
    a, b = len(label.comparison.a.text), len(label.comparison.b.text)
    return None if a == b else "a" if a > b else "b"
