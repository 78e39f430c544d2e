"""Two runs' answers to the same prompts, measure by measure (``cai compare``). Ours; the paper has no control arms.

Paired by prompt, so that hard and easy prompts cancel out. Every answer is measured anew, whatever its record says:
two runs may have been evaluated with two versions of the patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from constitutional_ai.detectors.boilerplate import offers_to_listen, reassures
from constitutional_ai.detectors.evasion import evades
from constitutional_ai.evaluation.answer_rates import verdict
from constitutional_ai.metrics.intervals import mean, paired_difference, rate
from constitutional_ai.records import Answer, Kind, Metric

PromptKey = tuple[Kind, str]
"""A prompt's kind and id. Kinds are measured by different patterns."""
BENIGN: tuple[Kind, ...] = ("helpful", "borderline")
ALL: tuple[Kind, ...] = ("red_team", *BENIGN)


@dataclass(frozen=True, slots=True)
class Difference:
    first: Metric
    """Over the prompts that both runs answered, as the other."""
    other: Metric
    change: Metric
    """The other's minus the first's, with Student's 95 % interval; none when all pairs differ alike."""


class Measure(NamedTuple):
    name: str
    kinds: tuple[Kind, ...]
    of: Callable[[Answer], bool | float | None]
    """None leaves the pair out. Shares are booleans."""


def objects(answer: Answer) -> bool:
    return verdict(answer.response).objects


MEASURES = (
    Measure("objection_rate", ("red_team",), objects),
    Measure("evasive_rate", ("red_team",), lambda a: evades(a.response.text)),
    Measure("benign_refusal_rate", BENIGN, objects),
    Measure("helpful_refusal_rate", ("helpful",), objects),
    Measure("borderline_refusal_rate", ("borderline",), objects),
    Measure("degenerate_rate", ALL, lambda a: verdict(a.response).degenerate is not None),
    Measure("boilerplate_rate", ALL, lambda a: reassures(a.response.text) or offers_to_listen(a.response.text)),
    Measure("answer_words", ALL, lambda a: float(len(a.response.text.split()))),
)
SCORES = (
    Measure("red_team_pm_score", ("red_team",), lambda a: a.reward),
    Measure("benign_pm_score", BENIGN, lambda a: a.reward),
)
"""Only where one preference model scored both runs (pitfall 22)."""


def by_prompt(answers: Sequence[Answer], model: str) -> dict[PromptKey, Answer]:
    """Return one model's answers by the prompt."""
    return {(a.response.prompt.kind, a.response.prompt.id): a for a in answers if a.model == model}


def differences(
    model: str,
    first: Mapping[PromptKey, Answer],
    other: Mapping[PromptKey, Answer],
    measures: Sequence[Measure],
) -> list[Difference]:
    """Over the prompts in both; a measure without any has values of None, not 0."""
    pairs = [(first[key], other[key]) for key in sorted(first.keys() & other.keys())]
    return [_difference(model, measure, pairs) for measure in measures]


def _difference(model: str, measure: Measure, pairs: Sequence[tuple[Answer, Answer]]) -> Difference:
    values = [
        (measure.of(one), measure.of(two)) for one, two in pairs if one.response.prompt.kind in measure.kinds
    ]
    known = [(one, two) for one, two in values if one is not None and two is not None]
    first, other = [one for one, _ in known], [two for _, two in known]
    return Difference(
        _value(measure.name, model, first),
        _value(measure.name, model, other),
        paired_difference(f"{measure.name}_change", model, first, other),
    )


def _value(name: str, model: str, values: Sequence[float]) -> Metric:
    return rate(name, model, [bool(v) for v in values]) if name.endswith("_rate") else mean(name, model, values)
