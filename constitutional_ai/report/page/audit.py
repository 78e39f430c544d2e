"""Audit the feedback model at the gate, where the right answer is known, and over its labels.

A judge may prefer the first or the longer answer, or be undecided (FB-8, pitfall 27). The right labels are unknown, so
over labels only metrics that do not need them are computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from constitutional_ai.evaluation.judge.judge_report import judge_report
from constitutional_ai.metrics.calibration import Bin
from constitutional_ai.metrics.intervals import mean, rate
from constitutional_ai.records import Failure, GateAnswer, Judgement, Metric, PreferenceLabel
from constitutional_ai.report.contents import Contents
from constitutional_ai.rl_cai.feedback.gate import CHANCE, GateResult, gate_result
from constitutional_ai.rl_cai.feedback.label import has_order
from constitutional_ai.runs import layout

CLEAR, OPEN = 0.4, 0.1
"""A label is clear if it is more than ``CLEAR`` away from 0.5, and open if it is less than ``OPEN`` away."""
KNOWN = (
    ("agreement", "Prefers the right answer", "a tie counts as wrong"),
    ("brier", "Brier score", "0.25 for always answering one half"),
    ("calibration_error", "Calibration error", "mean distance between probability and frequency"),
    ("error_by_luck", "… expected by chance", "for a perfectly calibrated judge"),
)
HABITS = (
    ("ties", "Tie", "P exactly one half"),
    ("flips", "Winner changes with the order", "of pairs judged in both orders"),
    ("prefers_first", "The answer shown first wins", "0.50 is no preference"),
    ("prefers_longer", "The longer answer wins", "unequal lengths, no ties"),
    ("people_prefer_longer", "… and is the right one", "in the same pairs"),
    ("failed", "No label", "for any reason"),
    ("refused", "… refused to judge", "methods with a written answer"),
    ("unreadable", "… unreadable answer", "or an empty one"),
)
NEED_TRUTH = {name for name, *_ in KNOWN} | {"people_prefer_longer"}
"""Metrics of a ``JudgeReport`` that need the right answer, which is unknown for labels."""


class Gate(NamedTuple):
    """The results of the gate."""

    result: GateResult
    by_tag: list[Metric]
    bins: tuple[Bin, ...]
    no_flips: str | None
    """Why there is no flip rate; None if there is one."""


def gate_of(contents: Contents) -> Gate | None:
    if not contents.gate:
        return None
    by_tag: dict[str, list[bool]] = defaultdict(list)
    for answer in contents.gate:
        for tag in answer.label.comparison.prompt.tags:
            by_tag[tag].append(answer.probability_right > CHANCE)
    tags = [rate("gate_accuracy", tag, right) for tag, right in sorted(by_tag.items())]
    report = judge_report("gate", contents.gate)
    return Gate(
        gate_result("feedback", contents.gate), tags, report.bins, _no_flips([a.label for a in contents.gate])
    )


class PrincipleUse(NamedTuple):
    """The metrics of the judgements under one principle."""

    name: str
    drawn: int
    """Number of comparisons for which it was drawn."""
    decided: Metric
    """Mean |P − 0.5| over these comparisons: 0 is a coin toss, 0.5 is certain."""
    flips: Metric
    first: Metric
    longer: Metric


class Labels(NamedTuple):
    """A summary of the labels."""

    pairs: int
    principles: list[PrincipleUse]
    no_flips: str | None


def labels_of(contents: Contents) -> Labels | None:
    labels = contents.labels
    return Labels(len(labels), _principles(labels), _no_flips(labels)) if labels else None


class AuditRow(NamedTuple):
    """A metric at the gate and over the labels; None if it could not be measured."""

    label: str
    explanation: str
    gate: Metric | None
    labels: Metric | None


def audit(contents: Contents) -> list[AuditRow]:
    """Return the metrics of a judge, at the gate and over its labels."""
    if not (contents.gate or contents.labels):
        return []
    failed = [f for s in contents.stages if s.about.name == layout.PREFERENCE_LABELS for f in s.failures]
    gate = judge_report("gate", [*contents.gate, *contents.gate_failures])
    # The labels' better side is unknown; no metric taken from this report depends on it.
    labels = judge_report("labels", [*_either(contents.labels), *failed])
    both = [_certainties(own) for own in ([answer.label for answer in contents.gate], contents.labels)]
    certainty = [
        AuditRow("Certainty", "mean |P − 0.5|", *[mean("decided", "", own) for own in both]),
        AuditRow(
            "Clear",
            "P below 0.1 or above 0.9",
            *[rate("clear", "", [x > CLEAR for x in own]) for own in both],
        ),
        AuditRow("Open", "P between 0.4 and 0.6", *[rate("open", "", [x < OPEN for x in own]) for own in both]),
    ]

    def rows(names: Sequence[tuple[str, str, str]]) -> Iterator[AuditRow]:
        for name, label, explanation in names:
            of_labels = None if name in NEED_TRUTH else getattr(labels, name)
            yield AuditRow(label, explanation, getattr(gate, name), of_labels)

    return [*rows(KNOWN), *certainty, *rows(HABITS)]


def _either(labels: Iterable[PreferenceLabel]) -> list[GateAnswer | Failure]:
    return [GateAnswer(label.id, label, "a") for label in labels]


def _certainties(labels: Iterable[PreferenceLabel]) -> list[float]:
    return [abs(label.probability_a - 0.5) for label in labels]


def _principles(labels: Iterable[PreferenceLabel]) -> list[PrincipleUse]:
    """Return metrics by principle, each from the judgements under that principle only."""
    alone: dict[str, list[PreferenceLabel]] = defaultdict(list)
    for label in labels:
        by_name: dict[str, list[Judgement]] = defaultdict(list)
        for judgement in label.judgements:
            by_name[judgement.principle].append(judgement)
        for name, judgements in by_name.items():
            mean_a = fmean(j.probability_a for j in judgements)
            alone[name].append(replace(label, judgements=tuple(judgements), probability_a=mean_a))
    used = []
    for name, own in alone.items():
        report, decided = judge_report(name, _either(own)), mean("decided", name, _certainties(own))
        used.append(
            PrincipleUse(name, len(own), decided, report.flips, report.prefers_first, report.prefers_longer)
        )
    return sorted(used, key=lambda use: (-use.drawn, use.name))


def _no_flips(labels: Sequence[PreferenceLabel]) -> str | None:
    if any(label.flipped is not None for label in labels):
        return None
    if not any(has_order(label) for label in labels):
        return "the likelihood method rates each answer alone, so there is no order"
    return "each pair was judged in one order only"
