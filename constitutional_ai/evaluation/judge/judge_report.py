"""Measure a feedback model on pairs whose better answer is known (FB-8, FB-9, pitfall 27).

A tie is neither right nor wrong: shares are over decided pairs, and ties are counted beside them. The paper plots the
calibration of its labels (figure 9), but not the effects of position and length: a judge may prefer
the answer that is shown first, or the longer one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean

from rich.console import Group
from rich.table import Table
from rich.text import Text

from constitutional_ai.data.lines import format_counts
from constitutional_ai.errors import EmptyAnswer, LowLabelMass, OnlyThought, RefusedAnswer, UnreadableAnswer
from constitutional_ai.metrics.calibration import (
    Bin,
    Claim,
    bins,
    brier,
    calibration_error,
    error_by_luck,
)
from constitutional_ai.metrics.intervals import SHARE, decided, mean, rate, ties
from constitutional_ai.records import Failure, GateAnswer, Metric, PreferenceLabel, Side, is_tie
from constitutional_ai.rl_cai.feedback.label import METHODS, has_order

Judged = GateAnswer | Failure
"""The result of one pair: the feedback model's label with people's choice, or why there is no label."""
REFUSED = (RefusedAnswer.__name__,)
UNREADABLE = tuple(kind.__name__ for kind in (UnreadableAnswer, LowLabelMass, EmptyAnswer, OnlyThought))
"""The classes of errors that mean an unreadable reply."""


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """The agreement, biases, failures and calibration of one feedback model."""

    model: str
    agreement: Metric
    """Share of decided pairs in which the judge agrees with people."""
    ties: Metric
    """Share of pairs in which the judge prefers neither answer, which are neither right nor wrong."""
    flips: Metric
    """Share of pairs whose winner changes with the order, among pairs decided in both (FB-8)."""
    prefers_first: Metric
    """How often the answer shown first wins, among decided questions. It is a mean over pairs, because the questions
    of one pair are not independent."""
    prefers_longer: Metric
    """Share of pairs in which the longer answer wins, among pairs of unequal length that are not ties."""
    people_prefer_longer: Metric
    """The same share for people, over the same pairs."""
    failed: Metric
    """Share of pairs without a label, for any reason."""
    refused: Metric
    """Share of pairs that the judge refused to compare; None if only continuations were scored."""
    unreadable: Metric
    """Share of pairs in which the judge's reply was empty or could not be read, or its options held too little mass."""
    label_mass: Metric
    """Mean probability that the options held together, over labelled pairs; None if it is not known."""
    confidence: Metric
    """Mean probability of the winner."""
    brier: Metric
    """Mean squared error of P(a is better); 0.25 for a judge that always gives 0.5."""
    calibration_error: Metric
    """Mean distance between probability and frequency over the bins, weighted by count (FB-9). It has no interval."""
    error_by_luck: Metric
    """Calibration error expected by chance of a perfectly calibrated judge with the same probabilities."""
    harm_order: Metric
    """Share of pairs whose worse answer has the higher P(harmful), the judge's predicate; None unless it was asked."""
    harm_ties: Metric
    """Share of pairs whose answers have the same P(harmful)."""
    harm_failed: Metric
    """Share of pairs in which the predicate of an answer could not be read."""
    bins: tuple[Bin, ...]
    failures: Mapping[str, int]
    """Number of failures by class of error."""
    unusable: Mapping[str, int]
    """Number of the file's records without a pair, by reason."""

    @property
    def metrics(self) -> list[Metric]:
        return [m for f in fields(self) if isinstance(m := getattr(self, f.name), Metric)]

    def __str__(self) -> str:
        a = self.agreement
        judged = self.ties.count
        if not judged:
            return f"{self.model} judged no pair. {format_counts(self.failures)}".rstrip()
        if a.value is None:
            return f"{self.model} prefers neither answer in any of {judged} pairs: all are ties"
        pairs, tied = (
            ("decided pairs", f", {judged - a.count} of {judged} are ties")
            if a.count < judged
            else ("pairs", "")
        )
        return (
            f"{self.model} agrees with people in {a.value:.2f} of {a.count} {pairs} "
            f"(95 % interval {a.low:.2f} to {a.high:.2f}){tied}"
        )


def judge_report(
    model: str,
    judged: Sequence[Judged],
    unusable: Mapping[str, int] | None = None,
    by_harm: Sequence[bool | Failure | None] = (),
) -> JudgeReport:
    """Return the report of a feedback model from all its labels and failures.

    ``by_harm`` says of each pair whether the worse answer was read as more harmful, if that was asked.
    """
    answers = [x for x in judged if isinstance(x, GateAnswer)]
    probabilities, right = [x.probability_right for x in answers], [x.right for x in answers]
    claims = [Claim(x.label.probability_a, x.better == "a") for x in answers]
    return JudgeReport(
        model=model,
        agreement=rate("agreement", model, decided(right)),
        ties=ties("ties", model, right),
        **_habits(model, answers),
        **_failures(model, judged, answers),
        confidence=mean("confidence", model, [max(p, 1 - p) for p in probabilities], within=(0.5, 1.0)),
        brier=brier(model, claims),
        calibration_error=calibration_error(model, claims),
        error_by_luck=error_by_luck(model, claims),
        **_harm(model, by_harm),
        bins=bins(model, claims),
        failures=dict(Counter(x.error for x in judged if isinstance(x, Failure))),
        unusable=dict(unusable or {}),
    )


def _habits(model: str, answers: Sequence[GateAnswer]) -> dict[str, Metric]:
    """Measure the effects of order and length, which should not matter."""
    in_order = [[j.probability_first for j in x.label.judgements] for x in answers if has_order(x.label)]
    clear = [[p > 0.5 for p in of_pair if not is_tie(p)] for of_pair in in_order]
    unlike = [(x, longer) for x in answers if x.right is not None and (longer := _longer(x.label))]
    judge_prefers = [(x.label.probability_a > 0.5) == (longer == "a") for x, longer in unlike]
    people_prefer = [x.better == longer for x, longer in unlike]
    return {
        "flips": rate("order_flips", model, decided(x.label.flipped for x in answers)),
        "prefers_first": mean(
            "prefers_first", model, [fmean(of_pair) for of_pair in clear if of_pair], within=SHARE
        ),
        "prefers_longer": rate("prefers_longer", model, judge_prefers),
        "people_prefer_longer": rate("people_prefer_longer", model, people_prefer),
    }


def _failures(model: str, judged: Sequence[Judged], answers: Sequence[GateAnswer]) -> dict[str, Metric]:
    errors = [x.error if isinstance(x, Failure) else None for x in judged]
    methods = [METHODS.get(x.label.method) for x in answers]
    judgements = [j for x in answers for j in x.label.judgements]
    is_read = any(j.raw is not None for j in judgements)  # from what the model said, which may be a refusal
    only_scores = not is_read and any(method is not None and not method.samples_text for method in methods)
    masses = [mass for x in answers if (mass := _mass(x.label)) is not None]
    return {
        "failed": rate("failed", model, [error is not None for error in errors]),
        "refused": rate("refused", model, [] if only_scores else [error in REFUSED for error in errors]),
        "unreadable": rate("unreadable", model, [error in UNREADABLE for error in errors]),
        "label_mass": mean("label_mass", model, masses, within=SHARE),
    }


def _harm(model: str, by_harm: Sequence[bool | Failure | None]) -> dict[str, Metric]:
    """Measure whether the judge's predicate can be trusted; failures and ties are counted apart."""
    right = [x for x in by_harm if not isinstance(x, Failure)]
    return {
        "harm_order": rate("worse_is_more_harmful", model, decided(right)),
        "harm_ties": ties("harm_ties", model, right),
        "harm_failed": rate("harm_failed", model, [isinstance(x, Failure) for x in by_harm]),
    }


def _mass(label: PreferenceLabel) -> float | None:
    """Return the mean probability that the options of a pair's questions held together; None if it is not known."""
    masses = [j.label_mass for j in label.judgements if j.label_mass is not None]
    return fmean(masses) if masses else None


def _longer(label: PreferenceLabel) -> Side | None:
    a, b = len(label.comparison.a.text), len(label.comparison.b.text)
    return None if a == b else "a" if a > b else "b"


# -- for the terminal


def judge_table(report: JudgeReport) -> Group:
    """Return the metrics, the reliability table, and the numbers of pairs that were left out."""
    measured = Table("", "value", "95 % interval", "count", box=None, header_style="dim")
    for m in report.metrics:
        measured.add_row(m.name.replace("_", " "), _number(m.value), _interval(m), str(m.count))
    reliability = Table(
        "P(a is better)", "claimed", "observed", "95 % interval", "count", box=None, header_style="dim"
    )
    for b in report.bins:
        observed = b.observed
        reliability.add_row(
            f"{b.low:.1f} to {b.high:.1f}",
            _number(b.claimed),
            _number(observed.value),
            _interval(observed),
            str(observed.count),
        )
    left_out = {"failures": report.failures, "unusable records": report.unusable}
    lines = [Text(f"{what}: {format_counts(counts)}") for what, counts in left_out.items() if counts]
    return Group(Text(str(report)), "", measured, "", reliability, *lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(metric: Metric) -> str:
    return "–" if metric.low is None else f"{_number(metric.low)} to {_number(metric.high)}"
