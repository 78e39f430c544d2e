"""The feedback model audited: at the gate, where the right answer is known, and over the labels that it gave.

A judge may like what stands first, or what is longer, or not know (FB-8, pitfall 27). Nobody knows which of two
answers of a run is right, so over labels only what needs no truth is measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from constitutional_ai.evaluation.judge.judge_report import JudgeReport, judge_report
from constitutional_ai.metrics.calibration import Bin
from constitutional_ai.metrics.intervals import mean, rate
from constitutional_ai.records import Failure, GateAnswer, Judgement, Metric, PreferenceLabel
from constitutional_ai.report.contents import Contents
from constitutional_ai.rl_cai.feedback.gate import CHANCE, GateResult, gate_result
from constitutional_ai.rl_cai.feedback.label import has_order
from constitutional_ai.runs import layout

CLEAR, OPEN = 0.4, 0.1
"""Further from one half than this, a label is clear; nearer, it is open."""
LABELS = layout.PREFERENCE_LABELS


class Gate(NamedTuple):
    result: GateResult
    by_tag: list[Metric]
    bins: tuple[Bin, ...]
    no_flips: str | None
    """Why there is no flip rate."""


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
    name: str
    drawn: int
    """Comparisons that it was drawn for."""
    decided: Metric
    """Mean |P − 0.5| over these: 0 is a coin, 0.5 is certain."""
    flips: Metric
    first: Metric
    longer: Metric


class Labels(NamedTuple):
    pairs: int
    principles: list[PrincipleUse]
    no_flips: str | None


def labels_of(contents: Contents) -> Labels | None:
    labels = contents.labels
    return Labels(len(labels), _principles(labels), _no_flips(labels)) if labels else None


class Row(NamedTuple):
    label: str
    says: str
    gate: Metric | None
    """None where nothing was asked, or where it could not be known."""
    labels: Metric | None


def audit(contents: Contents) -> list[Row]:
    """What one may want to know of a judge, at the gate and over its labels."""
    if not (contents.gate or contents.labels):
        return []
    failed = [f for s in contents.stages if s.about.name == LABELS for f in s.failures]
    gate = judge_report("gate", [*contents.gate, *contents.gate_failures])
    # Which side is said to be better changes nothing in what is taken from this report.
    labels = judge_report("labels", [*_either(contents.labels), *failed])
    leans = [(_leans([a.label for a in contents.gate])), _leans(contents.labels)]
    return [*_known(gate), *_leaning(*leans), *_habits(gate, labels), *_lost(gate, labels)]


def _known(gate: JudgeReport) -> list[Row]:
    return [
        Row("Sides with the right answer", "a tie does not", gate.agreement, None),
        Row("Brier score", "0.25 is always saying one half", gate.brier, None),
        Row("Calibration error", "mean distance of sure and right", gate.calibration_error, None),
        Row("… to be expected by luck", "of a judge who is as right as sure", gate.error_by_luck, None),
    ]


def _leaning(*leans: Sequence[float]) -> list[Row]:
    def each(name: str, met: Sequence[Sequence[bool]]) -> list[Metric]:
        return [rate(name, "", found) for found in met]

    return [
        Row("How far from a toss-up", "mean |P − 0.5|", *[mean("decided", "", lean) for lean in leans]),
        Row("Clear", "below 0.1 or above 0.9", *each("clear", [[x > CLEAR for x in lean] for lean in leans])),
        Row("Open", "between 0.4 and 0.6", *each("open", [[x < OPEN for x in lean] for lean in leans])),
    ]


def _habits(gate: JudgeReport, labels: JudgeReport) -> list[Row]:
    both = (gate, labels)
    return [
        Row("Tie", "exactly one half", *[r.ties for r in both]),
        Row("Winner changes with the order", "of pairs asked both ways round", *[r.flips for r in both]),
        Row("What is shown first wins", "0.50 is no preference", *[r.prefers_first for r in both]),
        Row("The longer answer wins", "of unlike length, no tie", *[r.prefers_longer for r in both]),
        Row("… and is the right one", "over the same pairs", gate.people_prefer_longer, None),
    ]


def _lost(gate: JudgeReport, labels: JudgeReport) -> list[Row]:
    both = (gate, labels)
    return [
        Row("No label", "for whatever reason", *[r.failed for r in both]),
        Row("… would not judge", "where it is asked for words", *[r.refused for r in both]),
        Row("… could not be read", "or said nothing", *[r.unreadable for r in both]),
    ]


def _either(labels: Iterable[PreferenceLabel]) -> list[GateAnswer | Failure]:
    return [GateAnswer(label.id, label, "a") for label in labels]


def _leans(labels: Iterable[PreferenceLabel]) -> list[float]:
    return [abs(label.probability_a - 0.5) for label in labels]


def _principles(labels: Iterable[PreferenceLabel]) -> list[PrincipleUse]:
    """The same by principle, each label as if this principle alone had been asked about."""
    alone: dict[str, list[PreferenceLabel]] = defaultdict(list)
    for label in labels:
        by_name: dict[str, list[Judgement]] = defaultdict(list)
        for judgement in label.judgements:
            by_name[judgement.principle].append(judgement)
        for name, asked in by_name.items():
            said = fmean(j.probability_a for j in asked)
            alone[name].append(replace(label, judgements=tuple(asked), probability_a=said))
    used = [_use(name, found) for name, found in alone.items()]
    return sorted(used, key=lambda use: (-use.drawn, use.name))


def _use(name: str, labels: Sequence[PreferenceLabel]) -> PrincipleUse:
    report = judge_report(name, _either(labels))
    decided = mean("decided", name, _leans(labels))
    return PrincipleUse(name, len(labels), decided, report.flips, report.prefers_first, report.prefers_longer)


def _no_flips(labels: Sequence[PreferenceLabel]) -> str | None:
    if any(label.flipped is not None for label in labels):
        return None
    if not any(has_order(label) for label in labels):
        return "the likelihood method weighs each answer alone, so there is no order that could matter"
    return "each question was put in one order only"
