"""Build figures 5, 6 and 7: preference-model scores of answers after each revision (section 3.4; EV-13, EV-14)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.revision_scores import label_of
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Metric
from constitutional_ai.report.figures import paper_numbers as paper
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Series, in_units, short
from constitutional_ai.report.figures.measured import Evaluation, missing, of_the_paper, point
from constitutional_ai.runs import layout
from constitutional_ai.runs.about import read_about

NAME = re.compile(r"pm_score\.(?P<pm>.+)\.revision_(?P<round>\d+)")
GREY = "Grey: Bai et al. 2022, read off the figure; other preference models, so compare shapes only."


@dataclass(frozen=True)
class ScoredRun:
    """A run's revisions with the scores of one preference model."""

    label: str
    places: tuple[Path, ...]
    """Possible folders of the run: that at the time of the evaluation, and the parent of its evaluation."""
    parameters: int | None
    """Number of parameters of the model that answered and revised."""
    judge: tuple[str, str]
    """Name of the preference model and digest of its weights, because two may have the same name."""
    rounds: Mapping[int, Metric]

    @property
    def named(self) -> str:
        return f"{self.label} ({in_units(self.parameters)})" if self.parameters else self.label

    def series(self, name: str) -> Series:
        return Series(name, tuple(point(n, m, self.label) for n, m in sorted(self.rounds.items())))


def figure_5(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return a panel for each preference model, with a line for each run."""
    panels: list[Panel] = []
    judges = _by_judge(_read(5, evaluations))
    for title, scored in judges.items():
        panel = _panel(title, scored, [one.series(one.named) for one in scored])
        if behind and (key := _of_the_papers(title)):
            # The paper's scores are centred already, and the panel subtracts its zero.
            grey = [
                of_the_paper(name, range(5), [y + panel.zero for y in ys])
                for name, ys in paper.PM_SCORES[key].items()
            ]
            panel = replace(panel, series=(*panel.series, *grey))
        panels.append(panel)
    zeros = " ".join(dict.fromkeys(map(_at_zero, judges.values())))
    lines = (zeros, "Bars: 95 % intervals. Scores of two preference models cannot be compared.")
    return PaperFigure(5, tuple(panels), (*lines, *([GREY] if behind else [])))


def figure_6(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return scores by round, with a line for each number of principles, and final scores by number of principles."""
    title, scored = _harmlessness(_read(6, evaluations))
    constitutions = {one.label: load_constitution(_file(one, layout.CONSTITUTION)) for one in scored}
    numbers = {label: len(constitution.for_revision) for label, constitution in constitutions.items()}
    scored = sorted(scored, key=lambda one: numbers[one.label])
    last = min(max(one.rounds) for one in scored)
    lines = [one.series(_line_name(one.label, numbers)) for one in scored]
    ends = tuple(
        Series(line.name, (point(numbers[one.label], one.rounds[last], one.label),))
        for one, line in zip(scored, lines, strict=True)
        if last in one.rounds
    )
    left = _panel(title, scored, lines)
    right = Panel(f"after {last} revisions", "principles", left.y_label, ends, x_scale="counts", zero=left.zero)
    return PaperFigure(6, (left, right), (f"{_at_zero(scored)} Bars: 95 % intervals.",))


def figure_7(evaluations: Sequence[Evaluation], behind: bool) -> PaperFigure:
    """Return scores of critiqued revisions (solid) and direct ones (dashed), with a colour per size (SL-14)."""
    title, scored = _harmlessness(_read(7, evaluations))
    lines = []
    for one in scored:
        style = load_recipe(str(_file(one, layout.RECIPE))).revisions.style
        size = in_units(one.parameters) if one.parameters else one.label
        line = one.series(f"{one.named}, {style}")
        lines.append(replace(line, colour=size, dashed=style != "critiqued"))
    note = "Solid: revised after a critique. Dashed: without one."
    return PaperFigure(7, (_panel(title, scored, lines),), (note, f"{_at_zero(scored)} Bars: 95 % intervals."))


# -- what was measured


def _read(number: int, evaluations: Sequence[Evaluation]) -> list[ScoredRun]:
    every = [one for evaluation in evaluations for one in _scored_runs(evaluation)]
    if not every:
        what = "preference models' scores of revisions"
        raise missing(number, what, "revisions --pm harmlessness=FOLDER", evaluations)
    return every


def _scored_runs(evaluation: Evaluation) -> Iterable[ScoredRun]:
    digests = _digests(evaluation.folder)
    rounds: dict[tuple[str, str], dict[int, Metric]] = {}
    for metric in evaluation.metrics:
        named = NAME.fullmatch(metric.name)
        if named and (value := evaluation.value(metric.name, metric.model)) is not None:
            rounds.setdefault((metric.model, named["pm"]), {})[int(named["round"])] = value
    for (run, pm), by_round in rounds.items():
        makers = [c for c in evaluation.candidates if c.run and label_of(c.run) == run]
        places = (*(Path(c.run) for c in makers[:1] if c.run), evaluation.folder.resolve().parent)
        size = next((c.parameters for c in makers if c.role == layout.START), None)
        yield ScoredRun(evaluation.shown(run), places, size, (pm, digests.get(pm, "")), by_round)


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests of the preference models' weights that the evaluation recorded."""
    started = read_about(folder).get("stages", {})
    stages = {k.partition("/pm-")[2]: v for k, v in started.items() if k.startswith("revisions/pm-")}
    return {pm: str(stage["inputs"].get(f"the weights of {pm}", "")) for pm, stage in stages.items()}


def _by_judge(scored: Iterable[ScoredRun]) -> dict[str, list[ScoredRun]]:
    """Group by preference model; the names of different models are made different by their digests (PM-6)."""
    judges: dict[tuple[str, str], list[ScoredRun]] = {}
    for one in scored:
        judges.setdefault(one.judge, []).append(one)
    often = Counter(name for name, _ in judges)
    return {f"{n} ({digest})" if often[n] > 1 else n: group for (n, digest), group in judges.items()}


def _harmlessness(scored: Sequence[ScoredRun]) -> tuple[str, list[ScoredRun]]:
    """Return the runs of the harmlessness model, as in the paper's figures 6 and 7, otherwise of the first model."""
    judges = _by_judge(scored)
    title = next((title for title in judges if _of_the_papers(title) == "harmlessness"), next(iter(judges)))
    return title, judges[title]


def _of_the_papers(title: str) -> str | None:
    """Return which of the paper's three preference models has a similar name."""
    beginnings = {"harml": "harmlessness", "helpf": "helpfulness", "both": "both", "hh": "both"}
    return next((key for start, key in beginnings.items() if title.lower().startswith(start)), None)


def _file(one: ScoredRun, name: str) -> Path:
    path = next((place / name for place in one.places if (place / name).is_file()), None)
    if path is None:
        raise InputError(
            f"{one.places[0] / name} is missing: it says how {one.label} was revised. Run the command in the folder in "
            "which you ran cai evaluate, with the run in its old place."
        )
    return path


# -- what is drawn


def _panel(title: str, scored: Sequence[ScoredRun], lines: Iterable[Series]) -> Panel:
    first = _first(scored)
    zero = first.rounds[min(first.rounds)].value or 0.0
    return Panel(title, "revisions", "PM score, centred", tuple(lines), x_scale="rounds", zero=zero)


def _first(scored: Sequence[ScoredRun]) -> ScoredRun:
    """Return the run with the largest model, whose answers before revision are at 0, as in the paper (PM-6)."""
    return max(scored, key=lambda one: one.parameters or 0)


def _at_zero(scored: Sequence[ScoredRun]) -> str:
    return f"{short(_first(scored).named)} is at 0 before revision."


def _line_name(label: str, numbers: Mapping[str, int]) -> str:
    number = numbers[label]
    name = "1 principle" if number == 1 else f"{number} principles"
    return f"{name} ({label})" if list(numbers.values()).count(number) > 1 else name
