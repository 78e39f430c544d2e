"""Paired differences between two runs' answers to the same prompts (``cai compare``). The paper has no such thing.

Pairing by prompt cancels how hard each prompt is. Detectors read every answer anew: two runs may have been evaluated
with two versions of the patterns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from constitutional_ai.evaluation.answer_rates import Measure, verdict
from constitutional_ai.records import Answer, Kind, Metric

PromptKey = tuple[Kind, str]
"""Kind and id of a prompt. Each kind has detectors of its own."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure of two runs, over the prompts that both answered."""

    first: Metric
    other: Metric
    change: Metric
    """Mean of other minus first, with Student's 95 % interval; no interval when all pairs differ by the same."""


def by_prompt(answers: Sequence[Answer], model: str) -> dict[PromptKey, Answer]:
    """Return one model's answers by prompt, each with the verdict of today's detectors."""
    return {
        (a.response.prompt.kind, a.response.prompt.id): replace(a, verdict=verdict(a.response))
        for a in answers
        if a.model == model
    }


def differences(
    model: str,
    first: Mapping[PromptKey, Answer],
    other: Mapping[PromptKey, Answer],
    measures: Sequence[Measure],
) -> list[Difference]:
    """Compare the answers to the prompts in both. The values of a measure without any prompt are None, not 0."""
    pairs = [(first[key], other[key]) for key in sorted(first.keys() & other.keys())]
    return [_difference(model, measure, pairs) for measure in measures]


def _difference(model: str, measure: Measure, pairs: Sequence[tuple[Answer, Answer]]) -> Difference:
    first, other = measure.pairs(pairs)
    return Difference(measure.metric(model, first), measure.metric(model, other), measure.change(model, pairs))
