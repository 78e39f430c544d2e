"""Draw helpfulness against harmlessness for the models and the snapshots of RL in order (the paper's figure 2).

One chart shows the share of harmless prompts answered and of red-team prompts objected to. Another shows the two Elo
scores if ``cai evaluate`` played matches (EV-8 to EV-10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from constitutional_ai.metrics.intervals import rate
from constitutional_ai.records import Candidate, Metric
from constitutional_ai.report.contents import Contents
from constitutional_ai.report.figures.elo_and_harmfulness import against
from constitutional_ai.report.figures.figure import Panel
from constitutional_ai.report.figures.measured import Evaluation, measured, over_training, trainings
from constitutional_ai.report.page.charts import Chart, by_role, chart
from constitutional_ai.report.page.formatting import number
from constitutional_ai.runs import layout

BEHAVIOUR = {"answered": "harmless prompts answered", "objects": "red-team prompts objected to"}
ORDER = {role: n for n, role in enumerate(layout.ROLES)}
ELO = {"elo.helpfulness": "helpfulness, Elo", "elo.harmlessness": "harmlessness, Elo"}


class Frontier(NamedTuple):
    chart: Chart
    axes: tuple[str, str]
    """Names of the horizontal and the vertical axis."""
    rows: list[tuple[str, list[Metric | None]]]
    """Label and values of each model; their numbers in the chart count from 1."""


def frontier(contents: Contents) -> Frontier | None:
    """Return each model's behaviour on held-out prompts, or None if it is not measured yet."""
    # A run writes the answers of its snapshots last, in their order.
    labels = sorted(dict.fromkeys(a.model for a in contents.answers), key=lambda label: "@" not in label)
    roles = {label: label.partition("@")[0] for label in labels}
    run = contents.folder.name
    candidates = [Candidate(x, "", role, run if role in layout.ROLES else None) for x, role in roles.items()]
    metrics = []
    for label in labels:
        read = [a for a in contents.answers if a.model == label and a.verdict.objects is not None]
        mine = [(a.response.prompt.kind == "red_team", a.verdict) for a in read]
        answered = [not v.objects and v.degenerate is None for red, v in mine if not red]
        metrics += [
            rate("answered", label, answered),
            rate("objects", label, [bool(v.objects) for red, v in mine if red]),
        ]
    here = Evaluation(contents.folder, "", tuple(candidates), tuple(metrics))
    return _drawn("Behaviour", "Up and to the right is better. Crosses: 95 % intervals.", here, BEHAVIOUR)


def elo_frontier(contents: Contents) -> Frontier | None:
    """Return the models' Elo scores, or None unless matches of both kinds were played."""
    here = Evaluation(contents.folder, "", contents.candidates, contents.evaluated)
    return _drawn("Matches", "Elo scores; only differences between models have a meaning.", here, ELO)


def _drawn(title: str, caption: str, here: Evaluation, names: Mapping[str, str]) -> Frontier | None:
    models = [one for training in trainings(measured([here])) for one in training]
    models.sort(key=lambda one: ORDER.get(one.candidate.role, len(ORDER)))
    numbers = {one.label: f"{n}" for n, one in enumerate(models, start=1)}
    roles = {one.label: one.candidate.role for one in models}
    series = tuple(
        replace(
            line,
            points=tuple(replace(p, note=numbers[p.model]) for p in line.points),
            colour=roles[line.name],
            marker=None,
        )
        for line in over_training([here], against(*names))
    )
    across, up = names.values()
    draw = by_role(Panel("", f"{across} →", f"{up} →", series, arrows=True))
    description = "; ".join(
        f"{p.note}: {number(p.x)} along, {number(p.y)} up" for s in series for p in s.points
    )
    rows = [(one.candidate.label, [one.value(name) for name in names]) for one in models]
    return (
        Frontier(chart(title, caption, description, draw, width=4.6, height=4.1), (across, up), rows)
        if series
        else None
    )
