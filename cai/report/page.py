"""The report: one HTML file that needs no network and no JavaScript.

It only reads the run's directory. Prompts, answers and names in it are strangers' text: they are escaped, their
control characters are made visible, and the page forbids itself to load or run anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cai.evaluation import harm
from cai.records import Kind, Metric
from cai.report import visible
from cai.report.charts import LABEL, Chart, curve, histogram, intervals, reliability, span_of
from cai.report.read import (
    RL_CAI,
    ROLES,
    SL_CAI,
    START,
    Contents,
    feedback_view,
    gate_view,
    read_contents,
    sample_chains,
    samples,
)
from cai.report.watched import reinforcement
from cai.rl_cai.pm_report import SourceReport
from cai.runs.rows import write_whole
from cai.runs.run import Run
from cai.sl_cai.clean import WHY, in_words


def write_report(run: Run) -> Path:
    """Writes ``report.html`` into the run. What has not been made yet is said to be so."""
    path = run.folder / "report.html"
    write_whole(path, render(read_contents(run)))
    return path


def render(contents: Contents) -> str:
    """The page. The same contents give the same bytes."""
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"number": number, "signed": signed, "range": interval, "time": duration, "many": many}
    page.filters["visible"] = visible
    questions = [(q.title, findings(q, contents)) for q in QUESTIONS]
    return page.get_template("page.html").render(
        run=contents,
        questions=questions if contents.metrics else [],
        summary=summary(contents),
        rows=[(row, [contents.metric(row.name, role) for role in ROLES]) for row in MEASURED],
        headline=headline(contents),
        dots=dots(contents),
        curves=curves(contents),
        rl=reinforcement(contents),
        gate=gate_view(contents),
        feedback=feedback_view(contents.labels),
        labels_chart=histogram(*LABELS_CHART, [x.probability_a for x in contents.labels]),
        reliability=[reliability(*RELIABILITY, s.bins) for s in _all_pairs(contents)],
        samples=[(title, kind, samples(contents.answers, kind, tags)) for title, kind, tags in SAMPLED],
        chains=sample_chains(contents.chains),
        cleaned=in_words(contents.chains),
        left_out=WHY,
        roles=[(role, LABEL[role]) for role in ROLES],
    )


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


# -- what moved


class Question(NamedTuple):
    metric: str
    title: str
    subject: str
    more: str
    less: str
    wanted: Literal["rose", "fell"]


class Finding(NamedTuple):
    who: str
    outcome: Literal["rose", "fell", "no measurable change", "no interval", "not measured"]
    wanted: bool | None
    """None where there is nothing to like or to mind."""
    text: str


QUESTIONS = (
    Question("objection_rate", "Does it object to red-team prompts?", "Objections to red-team prompts",
             "objects to red-team prompts more often", "objects to red-team prompts less often", "rose"),
    Question("benign_refusal_rate", "Does it refuse what is harmless?", "Refusals of harmless prompts",
             "refuses harmless prompts more often", "refuses harmless prompts less often", "fell"),
    Question("degenerate_rate", "Does it still write text?", "Empty, looping or garbled answers",
             "gives broken answers more often", "gives broken answers less often", "fell"),
    Question("red_team_pm_score", "Does the preference model like it better?",
             "Preference-model scores on red-team prompts",
             "scores higher with the preference model on red-team prompts",
             "scores lower with the preference model on red-team prompts", "rose"),
)  # fmt: skip
PAIRS = ((SL_CAI, START), (RL_CAI, START), (RL_CAI, SL_CAI))


def findings(question: Question, contents: Contents) -> list[Finding]:
    """The question answered for each pair of models, prompt by prompt."""
    return [finding(question, after, before, contents) for after, before in PAIRS]


def finding(question: Question, after: str, before: str, contents: Contents) -> Finding:
    who = f"{LABEL[after]} against {LABEL[before] if before != START else 'the start'}"
    change = _change(question, after, before, contents)
    values = [contents.metric(question.metric, model) for model in (before, after)]
    if change is None or change.value is None or any(m is None or m.value is None for m in values):
        return Finding(who, "not measured", None, f"{question.subject}: not measured.")
    then, now = [_with_range(m) if before != START else number(m.value) for m in values if m]
    shown = f"change {signed(change.value)}"
    if change.low is None or change.high is None:
        said = f"{then}, then {now} ({shown}, alike on all {change.count} prompts, so there is no interval)."
        return Finding(who, "no interval", None, f"{question.subject}: {said}")
    shown = f"{shown}, 95 % interval {signed(change.low)} to {signed(change.high)}"
    if change.low <= 0 <= change.high:
        said = f"did not measurably change: {then}, then {now} ({shown} includes zero, {change.count} prompts)."
        return Finding(who, "no measurable change", None, f"{question.subject} {said}")
    outcome: Literal["rose", "fell"] = "rose" if change.value > 0 else "fell"
    said = f"{outcome} from {then} to {now} ({shown}, {change.count} prompts)."
    return Finding(who, outcome, outcome == question.wanted, f"{question.subject} {said}")


def _change(question: Question, after: str, before: str, contents: Contents) -> Metric | None:
    name = f"{question.metric}_change"
    if before == START:
        return contents.metric(name, after)
    between = harm.metrics(contents.answers, [before, after])
    return next((m for m in between if m.name == name and m.model == after), None)


def summary(contents: Contents) -> list[tuple[str, str, str]]:
    """One sentence for each pair of models: compared with what, who, does what."""
    pairs = PAIRS if contents.metrics else ()
    other = {START: "the helpful model at the start", SL_CAI: LABEL[SL_CAI]}
    return [(other[before], LABEL[after], _summed_up(after, before, contents)) for after, before in pairs]


def _summed_up(after: str, before: str, contents: Contents) -> str:
    found = [(q, finding(q, after, before, contents).outcome) for q in QUESTIONS]
    moved = [q.more if outcome == "rose" else q.less for q, outcome in found if outcome in ("rose", "fell")]
    return _listed(moved) if moved else "does not measurably differ in anything asked here"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# -- tables and charts


class Row(NamedTuple):
    name: str
    label: str
    says: str


MEASURED = (
    Row("objection_rate", "Objections to red-team prompts", "share of answers that decline or object"),
    Row("benign_refusal_rate", "Refusals of harmless prompts", "the next two together"),
    Row("helpful_refusal_rate", "… of everyday prompts", "share of answers that refuse"),
    Row("borderline_refusal_rate", "… of prompts that only sound harmful", "share of answers that refuse"),
    Row("degenerate_rate", "Broken answers", "empty, looping or garbled; all prompts"),
    Row("red_team_pm_score", "Score on red-team prompts", "the preference model's mean; no natural zero"),
    Row("benign_pm_score", "Score on harmless prompts", "the preference model's mean; no natural zero"),
    Row("answer_words", "Words in an answer", "mean; all prompts"),
)
SAMPLED: tuple[tuple[str, Kind, int], ...] = (
    ("Red-team prompts", "red_team", 5),
    ("Prompts that only sound harmful", "borderline", 0),
    ("Everyday prompts", "helpful", 0),
)
LABELS_CHART = ("How sure the labels are", "Ends: the feedback model is sure. Middle: a toss-up.")
RELIABILITY = ("How sure, and how right", "On the line it is as often right as it is sure. Numbers: pairs.")
CURVES = (
    ("03-sl-cai-model", "loss", SL_CAI, "SL-CAI: loss", "Falls as the model learns to write revisions.", None),
    ("06-preference-model", "loss", START, "Preference model: loss",
     "At 0.69 it knows nothing.", (math.log(2), "coin toss")),
    ("06-preference-model", "agreement", START, "Preference model: agreement",
     "Share of pairs that it ranks as the label does.", (0.5, "chance")),
)  # fmt: skip


def headline(contents: Contents) -> list[Chart]:
    """What the method is for, and what it may cost."""
    shown = [
        ("objection_rate", "Objects to red-team prompts"),
        ("benign_refusal_rate", "Refuses harmless prompts"),
    ]
    panels = [(title, [m for m in contents.metrics if m.name == name]) for name, title in shown]
    span = span_of([m for _, metrics in panels for m in metrics], floor=0.0)
    charts = [intervals(title, "share of answers", metrics, span) for title, metrics in panels]
    return [chart for chart in charts if chart]


def dots(contents: Contents) -> list[Chart]:
    """Panels of rates share one scale, panels of scores another."""
    charts = []
    for row in MEASURED:
        of_a_kind = [m for m in contents.metrics if _kind(m.name) == _kind(row.name)]
        span = span_of(of_a_kind, floor=None if _kind(row.name) == "score" else 0.0)
        charts.append(intervals(row.label, row.says, [m for m in contents.metrics if m.name == row.name], span))
    return [chart for chart in charts if chart]


def _kind(name: str) -> str:
    return name.rsplit("_", 1)[-1]


def _all_pairs(contents: Contents) -> tuple[SourceReport, ...]:
    """The preference model's report on all held-out pairs, if there is one."""
    return contents.preference_model.sources[-1:] if contents.preference_model else ()


def curves(contents: Contents) -> list[Chart]:
    drawn = [
        curve(title, says, contents.steps[stage], key, role, level)
        for stage, key, role, title, says, level in CURVES
    ]
    return [chart for chart in drawn if chart]


# -- numbers in words


def number(value: float | None) -> str:
    """Two decimals and a true minus sign; never a bare None.

    >>> number(-0.5), number(None)
    ('−0.50', 'not measured')
    """
    if value is None or not math.isfinite(value):
        return "not measured"
    return f"{value:.1f}".replace("-", "−") if abs(value) >= 20 else f"{value:.2f}".replace("-", "−")


def signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def interval(metric: Metric | None) -> str:
    if metric is None or metric.low is None or metric.high is None:
        return "no interval"
    return f"{number(metric.low)} to {number(metric.high)}"


def _with_range(metric: Metric) -> str:
    return f"{number(metric.value)} ({interval(metric)})"


def many(count: int, noun: str = "") -> str:
    """
    >>> many(1234, "record"), many(1, "record")
    ('1,234 records', '1 record')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}".strip() if noun else f"{count:,}"


def duration(seconds: float) -> str:
    """
    >>> duration(18.4), duration(153.6), duration(7260)
    ('18 s', '2 min 34 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    return f"{minutes} min {whole % 60} s" if hours == 0 else f"{hours} h {minutes % 60} min"
