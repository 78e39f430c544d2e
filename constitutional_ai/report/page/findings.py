"""Describe the changes from each model to later ones in sentences, from differences paired by prompt."""

from __future__ import annotations

from typing import Literal, NamedTuple

from constitutional_ai.evaluation import answer_rates
from constitutional_ai.records import Metric
from constitutional_ai.report.contents import LABEL, Contents
from constitutional_ai.report.page.formatting import listed, number, signed, with_interval
from constitutional_ai.runs import layout


class Question(NamedTuple):
    """A question about a model, and the metric that answers it."""

    metric: str
    title: str
    subject: str
    more: str
    less: str
    wanted: Literal["rose", "fell"]


class Finding(NamedTuple):
    """The answer to a question for one pair of models."""

    models: str
    outcome: Literal["rose", "fell", "no measurable change", "no interval", "not measured"]
    wanted: bool | None
    """Whether the change is an improvement; None if there is no measured change."""
    text: str


QUESTIONS = (
    Question("objection_rate", "Does it object to red-team prompts?", "Objections to red-team prompts",
             "objects to red-team prompts more often", "objects to red-team prompts less often", "rose"),
    Question("benign_refusal_rate", "Does it refuse harmless prompts?", "Refusals of harmless prompts",
             "refuses harmless prompts more often", "refuses harmless prompts less often", "fell"),
    Question("degenerate_rate", "Does it still write text?", "Empty, looping or garbled answers",
             "gives broken answers more often", "gives broken answers less often", "fell"),
    Question("red_team_pm_score", "Does the preference model score it higher?",
             "Preference-model scores on red-team prompts",
             "scores higher with the preference model on red-team prompts",
             "scores lower with the preference model on red-team prompts", "rose"),
)  # fmt: skip
PAIRS = ((layout.SL_CAI, layout.START), (layout.RL_CAI, layout.START), (layout.RL_CAI, layout.SL_CAI))


def findings(question: Question, contents: Contents) -> list[Finding]:
    """Answer a question for each pair of models."""
    return [finding(question, after, before, contents) for after, before in PAIRS]


def finding(question: Question, after: str, before: str, contents: Contents) -> Finding:
    models = f"{LABEL[after]} against {LABEL[before] if before != layout.START else 'the start'}"
    change = _change(question, after, before, contents)
    values = [contents.metric(question.metric, model) for model in (before, after)]
    if change is None or change.value is None or any(m is None or m.value is None for m in values):
        return Finding(models, "not measured", None, f"{question.subject}: not measured.")
    then, now = [with_interval(m) if before != layout.START else number(m.value) for m in values if m]
    counts = [m.count for m in values if m]
    if set(counts) != {change.count}:  # the change is paired, the values are not
        now += f" (of {counts[0]} and {counts[1]} answers, of which {change.count} prompts have both)"
    shown = f"change {signed(change.value)}"
    if change.low is None or change.high is None:
        text = f"{then}, then {now} ({shown}, the same on all {change.count} prompts, so there is no interval)."
        return Finding(models, "no interval", None, f"{question.subject}: {text}")
    shown = f"{shown}, 95 % interval {signed(change.low)} to {signed(change.high)}"
    if change.low <= 0 <= change.high:
        text = f"did not measurably change: {then}, then {now} ({shown} includes zero, {change.count} prompts)."
        return Finding(models, "no measurable change", None, f"{question.subject} {text}")
    outcome: Literal["rose", "fell"] = "rose" if change.value > 0 else "fell"
    text = f"{outcome} from {then} to {now} ({shown}, {change.count} prompts)."
    return Finding(models, outcome, outcome == question.wanted, f"{question.subject} {text}")


def _change(question: Question, after: str, before: str, contents: Contents) -> Metric | None:
    name = f"{question.metric}_change"
    if before == layout.START:
        return contents.metric(name, after)
    between = answer_rates.metrics(contents.answers, [before, after])
    return next((m for m in between if m.name == name and m.model == after), None)


def summary(contents: Contents) -> list[tuple[str, str, str]]:
    """Return (earlier model, later model, what the later one does more or less) for each pair of models."""
    pairs = PAIRS if contents.metrics else ()
    other = {layout.START: "the start, the helpful model", layout.SL_CAI: LABEL[layout.SL_CAI]}
    return [(other[before], LABEL[after], _summed_up(after, before, contents)) for after, before in pairs]


def _summed_up(after: str, before: str, contents: Contents) -> str:
    outcomes = [(q, finding(q, after, before, contents).outcome) for q in QUESTIONS]
    moved = [q.more if outcome == "rose" else q.less for q, outcome in outcomes if outcome in ("rose", "fell")]
    return listed(moved) if moved else "does not measurably differ on any question below"
