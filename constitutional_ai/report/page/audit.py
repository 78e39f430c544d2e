"""Audit the feedback model at the gate, where the right answer is known, and over its labels.

A judge may prefer the first or the longer answer, or be undecided (FB-8, pitfall 27). The right labels are unknown, so
over labels only metrics that do not need them are computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from constitutional_ai.evaluation.judge.judge_report import judge_report
from constitutional_ai.metrics.calibration import Bin
from constitutional_ai.metrics.intervals import decided, mean, rate, ties
from constitutional_ai.records import Failure, GateAnswer, Metric, PreferenceLabel
from constitutional_ai.report.contents import Contents
from constitutional_ai.rl_cai.feedback.gate import GateResult, gate_result
from constitutional_ai.runs import layout

CLEAR, OPEN = 0.4, 0.1
"""A label is clear if it is more than ``CLEAR`` away from 0.5, and open if it is less than ``OPEN`` away."""
KNOWN = (
    ("agreement", "Prefers the right answer", "share of decided questions; ties are counted below"),
    ("brier_score", "Brier score", "0.25 for always answering one half"),
    ("calibration_error", "Calibration error", "mean distance between probability and frequency"),
    ("error_by_luck", "… expected by chance", "for a perfectly calibrated judge"),
)
CERTAINTY = (
    ("certainty", "Certainty", "mean |P − 0.5|"),
    ("clear", "Clear", "P below 0.1 or above 0.9"),
    ("open", "Open", "P between 0.4 and 0.6"),
)
HABITS = (
    ("ties", "Tie", "P exactly one half: neither right nor wrong"),
    ("order_flips", "Winner changes with the order", "of pairs decided in both orders"),
    ("prefers_first", "The answer shown first wins", "decided questions; 0.50 is no preference"),
    ("prefers_longer", "The longer answer wins", "unequal lengths, no ties"),
    ("people_prefer_longer", "… and is the right one", "in the same pairs"),
    ("failed", "No label", "for any reason"),
    ("refused", "… refused to judge", "methods with a written answer"),
    ("unreadable", "… unreadable answer", "or an empty one"),
    ("label_mass", "Probability of all options", "where a server tells it"),
)
NEED_TRUTH = {name for name, *_ in KNOWN} | {"people_prefer_longer"}
"""Metrics that need the right answer, which is unknown for labels."""
OF_A_PRINCIPLE = ("certainty", "order_flips", "prefers_first", "prefers_longer")
"""The metrics of a ``PrincipleUse``."""


class Gate(NamedTuple):
    """The results of the gate."""

    result: GateResult
    by_tag: list[tuple[Metric, Metric]]
    """Accuracy over the decided questions of a tag, and the share of its ties."""
    bins: tuple[Bin, ...]


def gate_of(contents: Contents) -> Gate | None:
    if not contents.gate:
        return None
    by_tag: dict[str, list[bool | None]] = defaultdict(list)
    for answer in contents.gate:
        for tag in answer.label.comparison.prompt.tags:
            by_tag[tag].append(answer.right)
    tags = [
        (rate("gate_accuracy", tag, decided(right)), ties("gate_ties", tag, right))
        for tag, right in sorted(by_tag.items())
    ]
    return Gate(gate_result("feedback", contents.gate), tags, judge_report("gate", contents.gate).bins)


class PrincipleUse(NamedTuple):
    """The metrics of the judgements under one principle."""

    name: str
    decided: Metric
    """Mean |P − 0.5| over these comparisons: 0 is a coin toss, 0.5 is certain."""
    flips: Metric
    first: Metric
    longer: Metric


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
    gate = _measures([*contents.gate, *contents.gate_failures])
    # The labels' better side is unknown; no metric taken from this report depends on it.
    labels = _measures([*_either(contents.labels), *failed])
    return [
        AuditRow(label, explanation, gate[name], None if name in NEED_TRUTH else labels[name])
        for name, label, explanation in (*KNOWN, *CERTAINTY, *HABITS)
    ]


def _measures(judged: Sequence[GateAnswer | Failure]) -> dict[str, Metric]:
    """Return all metrics of a judge by name."""
    certainties = [abs(one.label.probability_a - 0.5) for one in judged if isinstance(one, GateAnswer)]
    return {
        **{metric.name: metric for metric in judge_report("", judged).metrics},
        "certainty": mean("certainty", "", certainties, within=(0.0, 0.5)),
        "clear": rate("clear", "", [x > CLEAR for x in certainties]),
        "open": rate("open", "", [x < OPEN for x in certainties]),
    }


def _either(labels: Iterable[PreferenceLabel]) -> list[GateAnswer | Failure]:
    return [GateAnswer(label.id, label, "a") for label in labels]


def principles_of(labels: Iterable[PreferenceLabel]) -> list[PrincipleUse]:
    """Return metrics by principle, each from the judgements under that principle only."""
    alone: dict[str, list[PreferenceLabel]] = defaultdict(list)
    for label in labels:
        for name in dict.fromkeys(judgement.principle for judgement in label.judgements):
            own = tuple(j for j in label.judgements if j.principle == name)
            mean_a = fmean(j.probability_a for j in own)
            alone[name].append(replace(label, judgements=own, probability_a=mean_a))
    measured = {name: _measures(_either(own)) for name, own in alone.items()}
    used = [PrincipleUse(name, *(of[key] for key in OF_A_PRINCIPLE)) for name, of in measured.items()]
    return sorted(used, key=lambda use: (-use.decided.count, use.name))
