"""Compare the arms of a sweep: every measure of every model, paired by prompt with the first setting of its seed.

An interval over prompts does not cover the luck of a training. So where seeds are among the arms, each setting's rates
and differences are also averaged over seeds, with Student's interval over the seeds.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.answer_rates import MEASURES, OBJECTION, REFUSALS
from constitutional_ai.evaluation.compare_runs import PromptKey, by_prompt
from constitutional_ai.metrics.intervals import mean, range_of_differences
from constitutional_ai.recipes.arms import SEED, Arm
from constitutional_ai.records import Answer, Metric
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.safe_text import csv_text, visible

SHOWN = (OBJECTION.name, REFUSALS[0].name)
"""The measures of the table and the figure; the files have all."""
MODELS = (layout.START, layout.SL_CAI, layout.RL_CAI, layout.PROMPTED)
LUCK = (
    "A row's interval covers the choice of prompts, not the luck of a training: add seed=0..4 before you believe a "
    "difference. Of twenty such intervals, about one excludes zero by chance alone."
)
STAGE = layout.EVALUATION


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One measure of one model of an arm, or of a setting over its seeds."""

    arm: str
    """Name of the arm; of a setting over seeds, the values of its keys."""
    values: Mapping[str, str]
    value: Metric
    """The share or mean; over seeds, the mean of the arms' values, with the number of seeds as its count."""
    baseline: str | None
    """The arm that it is compared with; None for the first setting of a seed."""
    change: Metric | None
    """Mean difference from the baseline over the prompts that both answered; over seeds, its mean. None without one."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The results of a sweep."""

    recipe: str
    keys: tuple[str, ...]
    """The keys that differ between arms."""
    arms: tuple[str, ...]
    rows: tuple[SweepRow, ...]
    over_seeds: tuple[SweepRow, ...]
    """Empty unless a setting has several seeds."""
    stopped: Mapping[str, str]
    """Why an arm has no results, by its name."""


_Answers = dict[str, dict[PromptKey, Answer]]
"""The answers of an arm's models, by model and prompt."""


def sweep_table(
    recipe: str, arms: Sequence[Arm], stopped: Mapping[str, str], prompts: Container[str] | None = None
) -> Sweep:
    """Return the results of the arms whose evaluation is complete. ``stopped`` says why others have none.

    ``prompts`` are the ids of those whose answers are counted; None counts all.
    Raises InputError if an arm that was not stopped is not evaluated.
    """
    answers = {arm.name: _answers(arm, prompts) for arm in arms if arm.name not in stopped}
    done = [arm for arm in arms if arm.name in answers]
    firsts = {arm.values.get(SEED): arm for arm in reversed(arms) if _is_first(arm, arms)}
    rows: list[SweepRow] = []
    for arm in done:
        first = firsts[arm.values.get(SEED)]
        other = answers.get(first.name) if first != arm else None
        rows += _rows(arm, answers[arm.name], first.name if other else None, other or {})
    keys = tuple(arms[0].values)
    return Sweep(recipe, keys, tuple(a.name for a in done), tuple(rows), tuple(_over_seeds(rows)), stopped)


def _is_first(arm: Arm, arms: Sequence[Arm]) -> bool:
    """Return whether an arm has the first value of every key but the seed."""
    return arm.setting == arms[0].setting


def _answers(arm: Arm, prompts: Container[str] | None) -> _Answers:
    run = read_run(arm.folder)
    if run.manifest(STAGE) is None:
        raise InputError(f"{arm.folder} is not evaluated yet. Type the same cai sweep again.")
    rows = [a for a in run.rows(STAGE, Answer) if prompts is None or a.response.prompt.id in prompts]
    return {model: own for model in MODELS if (own := by_prompt(rows, model))}


def _rows(arm: Arm, answers: _Answers, baseline: str | None, other: _Answers) -> Iterator[SweepRow]:
    for model, own in answers.items():
        first = other.get(model, {})
        pairs = [(first[key], own[key]) for key in sorted(first.keys() & own.keys())]
        for measure in MEASURES:
            value = measure.metric(model, [v for _, v in measure.known(list(own.values()))])
            change = measure.change(model, pairs) if baseline else None
            yield SweepRow(arm.name, arm.values, value, baseline, change)


def _over_seeds(rows: Sequence[SweepRow]) -> Iterator[SweepRow]:
    groups: dict[tuple[tuple[tuple[str, str], ...], str, str], list[SweepRow]] = {}
    for row in rows:
        setting = tuple((key, value) for key, value in row.values.items() if key != SEED)
        groups.setdefault((setting, row.value.model, row.value.name), []).append(row)
    for (setting, model, name), own in groups.items():
        if len(own) < 2:
            continue
        known = [row.value.value for row in own if row.value.value is not None]
        changes = [row.change.value for row in own if row.change and row.change.value is not None]
        is_first = all(row.baseline is None for row in own)
        label = ", ".join(f"{key}={value}" for key, value in setting) or "all arms"
        within = next(measure.within for measure in MEASURES if measure.name == name)
        changed = range_of_differences(within)
        yield SweepRow(
            label,
            dict(setting),
            mean(name, model, known, within=within),
            None if is_first else "the first setting, seed by seed",
            None if is_first else mean(f"{name}_change", model, changes, within=changed),
        )


# -- files and the terminal


def as_json(sweep: Sweep) -> str:
    """Return the results as JSON; what was not measured is null."""
    return json.dumps({**asdict(sweep), "note": LUCK}, indent=1) + "\n"


def write_files(sweep: Sweep, folder: Path) -> None:
    """Write ``sweep.json`` and ``sweep.csv``, which have every row."""
    head = (*("over", "arm"), *sweep.keys, *("model", "measure", "value", "low", "high", "count"))
    rows: list[tuple[object, ...]] = [(*head, "baseline", "change", "change_low", "change_high", "pairs")]
    for over, own in (("prompts", sweep.rows), ("seeds", sweep.over_seeds)):
        for row in own:
            v, c = row.value, row.change
            values = [row.values.get(key) for key in sweep.keys]
            change = (c.value, c.low, c.high, c.count) if c else (None,) * 4
            cells = (over, row.arm, *values, v.model, v.name, v.value, v.low, v.high, v.count)
            rows.append((*cells, row.baseline, *change))
    write_atomically(folder / "sweep.csv", csv_text(rows))
    write_atomically(folder / "sweep.json", as_json(sweep))


def table(sweep: Sweep) -> Group:
    """Return the results for the terminal: objections and refusals of harmless prompts of the trained models."""
    parts: list[RenderableType] = [_shown(sweep.rows, "prompts")]
    if sweep.over_seeds:
        parts += [
            "",
            Text("Over seeds: means, with intervals over the seeds."),
            _shown(sweep.over_seeds, "seeds"),
        ]
    parts += [Text(visible(f"{arm} has no results: {why}")) for arm, why in sweep.stopped.items()]
    return Group(*parts, "", Text(LUCK))


def _shown(rows: Sequence[SweepRow], unit: str) -> Table:
    arm = Column("arm", overflow="fold")
    drawn = Table(
        arm, "model", "measure", "value", "95 %", unit, "difference", "95 %", box=None, header_style="dim"
    )
    for row in rows:
        if row.value.name not in SHOWN or row.value.model == layout.START:
            continue
        v, c = row.value, row.change
        change = (_number(c.value, "+"), _span(c, "+")) if c else ("", "")
        name = v.name.replace("_", " ")
        drawn.add_row(Text(visible(row.arm)), v.model, name, _number(v.value), _span(v), str(v.count), *change)
    return drawn


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.2f}".replace("-", "−")


def _span(metric: Metric, sign: str = "") -> str:
    if metric.low is None or metric.high is None:
        return "–"
    return f"{_number(metric.low, sign)} to {_number(metric.high, sign)}"
