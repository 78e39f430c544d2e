"""Compare finished runs with the first of them (``cai compare``): does a difference come from the constitution?

It changes no run. A control run has the same recipe with ``control`` (``constitutions/control.py``) and another
``out``. Two runs can be compared if their evaluations have the same settings and share some prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.lines import read_yaml
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.answer_rates import MEASURES, REWARDS, Measure, verdict
from constitutional_ai.recipes.recipe import Recipe, flat
from constitutional_ai.records import Answer, Kind, Metric
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.rows import load_json, write_atomically
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible

STAGE = layout.EVALUATION
LIMITS = {f"evaluation.{kind}" for kind in ("red_team", "helpful", "borderline")}
"""Numbers of prompts, which do not change the answer to a prompt."""
FEW_SHOTS = "few_shots"
"""A stage has the digest of the worked examples, not their name, under this key."""
SEPARATE = (
    "Scores are left out: these runs were not scored by the same preference model, and the scores of two cannot be "
    "compared."
)
SEVERAL = "Several settings differ, so no difference can be attributed to one of them."
LUCK = (
    "An interval covers the choice of prompts, not the luck of a training: repeat every run with another seed "
    "before you believe a difference. Of twenty such intervals, about one excludes zero by chance alone."
)
PromptKey = tuple[Kind, str]
"""Kind and id of a prompt. Each kind has its own detectors."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the recipe in which two runs differ."""

    key: str
    first: Any
    other: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure of two runs, over the prompts that both answered."""

    first: Metric
    other: Metric
    change: Metric
    """Mean of other minus first, with Student's 95 % interval; no interval if all differences are equal."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison of one run with the first."""

    first: str
    other: str
    differ: tuple[Setting, ...]
    prompts: int
    """Number of prompts answered in both runs."""
    only_first: int
    only_other: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


class _Finished(NamedTuple):
    """A run whose evaluation is complete."""

    name: str
    run: Run
    evaluated: StageManifest
    answers: list[Answer]


def compare_runs(folders: Sequence[str], out: Path | None = None) -> list[Compared]:
    """Compare each run with the first, and write the result to the JSON file ``out``.

    Raises InputError if they cannot be compared.
    """
    if len(folders) < 2:
        raise InputError("name two or more runs: cai compare RUN RUN")
    if out and out.exists():
        raise InputError(f"{out} already exists. Delete it, or choose another file with --out.")
    first, *others = [_finished(folder) for folder in folders]
    compared = [_compare(first, other) for other in others]
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(
            out, json.dumps([asdict(one) for one in compared], indent=1, ensure_ascii=False) + "\n"
        )
    return compared


def _finished(folder: str) -> _Finished:
    run = read_run(folder)
    evaluated = load_json(run.stage(STAGE) / layout.MANIFEST, StageManifest)
    if evaluated is None:
        raise InputError(f"{folder} is not evaluated yet. Finish it with: cai run {folder}/recipe.yaml")
    return _Finished(folder, run, evaluated, run.rows(STAGE, Answer))


def _compare(first: _Finished, other: _Finished) -> Compared:
    _check_same_settings(first, other)
    models = [
        (role, by_prompt(first.answers, role), by_prompt(other.answers, role))
        for role in (layout.RL_CAI, layout.SL_CAI)
    ]
    here, there = {key for _, one, _ in models for key in one}, {key for *_, two in models for key in two}
    if not here & there:
        raise InputError(
            f"{first.name} and {other.name} were evaluated on different prompts. Give both the same prompts.*.file."
        )
    scorers = {run.evaluated.inputs.get(layout.PREFERENCE_MODEL) for run in (first, other)}
    one_scorer = len(scorers) == 1 and None not in scorers
    measures = MEASURES + REWARDS if one_scorer else MEASURES
    differ = tuple(_settings_that_differ(first.run, other.run))
    return Compared(
        first=first.name,
        other=other.name,
        differ=differ,
        prompts=len(here & there),
        only_first=len(here - there),
        only_other=len(there - here),
        differences=tuple(d for role, one, two in models for d in differences(role, one, two, measures)),
        notes=(*([] if one_scorer else [SEPARATE]), *([SEVERAL] if len(differ) > 1 else []), LUCK),
    )


def _check_same_settings(first: _Finished, other: _Finished) -> None:
    then, now = first.evaluated.config, other.evaluated.config
    for key in sorted(then.keys() & now.keys() - LIMITS):
        if key.startswith("evaluation.") and then[key] != now[key]:
            raise InputError(
                f"{first.name} was evaluated with {key}: {then[key]}, {other.name} with {now[key]}, so their answers "
                "cannot be compared. Evaluate one again: "
                f"cai run {other.name}/recipe.yaml {key}={then[key]} --redo {STAGE}"
            )


def _settings_that_differ(first: Run, other: Run) -> list[Setting]:
    one, two = _settings(first), _settings(other)
    keys = [key for key in {**one, **two} if key != "out" and one.get(key) != two.get(key)]
    settings = [Setting(key, one.get(key), two.get(key)) for key in keys]
    versions = [_constitution(run) for run in (first, other)]
    if versions[0] != versions[1] and not {"constitution", "control"} & set(keys):
        settings.append(Setting("text of the constitution: version", *versions))
    return settings


def _settings(run: Run) -> dict[str, Any]:
    """Return a run's settings by dotted key. A setting that is newer than the run has its default.

    They are not validated, because an old run may have settings that no longer exist.
    """
    path = run.folder / layout.RECIPE
    settings, _ = read_yaml(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path} is not the recipe of a run. Name a folder that cai run wrote.")
    known = flat(Recipe().model_dump(mode="json")) | flat(settings)
    return known | {
        key: value for key, value in _stage_settings(run).items() if key in known and key != FEW_SHOTS
    }


def _stage_settings(run: Run) -> dict[str, Any]:
    """Return the settings with which the complete stages were made, whatever the recipe in the folder says now."""
    return {k: v for stage in layout.STAGES if (done := run.manifest(stage)) for k, v in done.config.items()}


def _constitution(run: Run) -> str:
    """Return the digest of the constitution under which answers were revised; else of the one in the folder."""
    revised = run.manifest(layout.REVISIONS)
    revised_under = revised.inputs.get("constitution") if revised else None
    return revised_under or load_constitution(run.folder / layout.CONSTITUTION).digest


# -- measures, paired by prompt, which cancels how hard each prompt is


def by_prompt(answers: Sequence[Answer], model: str) -> dict[PromptKey, Answer]:
    """Return one model's answers by prompt, each with the verdict of the present detectors."""
    return {
        (a.response.prompt.kind, a.response.prompt.id): replace(a, verdict=verdict(a.response))
        for a in answers
        if a.model == model
    }


def differences(
    model: str,
    first: Mapping[PromptKey, Answer],
    other: Mapping[PromptKey, Answer],
    measures: Sequence[Measure],
) -> list[Difference]:
    """Compare the answers to prompts that are in both. A metric without prompts has None, not 0."""
    pairs = [(first[key], other[key]) for key in sorted(first.keys() & other.keys())]
    return [
        Difference(one.metric(model, before), one.metric(model, after), one.change(model, pairs))
        for one in measures
        for before, after in [one.pairs(pairs)]
    ]


# -- for the terminal


def table(compared: Sequence[Compared]) -> Group:
    """Return the settings that differ and the metrics of each comparison, for the terminal."""
    parts: list[RenderableType] = []
    for one in compared:
        parts += [*_heading(one), _measured(one), *[Text(note) for note in one.notes if note != LUCK], ""]
    return Group(*parts, Text(LUCK))


def _heading(one: Compared) -> list[RenderableType]:
    more = [
        f"{n} only in {name}" for n, name in ((one.only_first, one.first), (one.only_other, one.other)) if n
    ]
    settings = [f"  {s.key}: {s.first} → {s.other}" for s in one.differ] or [
        "  no setting: the recipes are the same"
    ]
    lines = [
        f"{one.first} against {one.other}: {', '.join([f'{one.prompts} prompts in both', *more])}",
        "They differ in",
        *settings,
    ]
    return [Text(visible(line)) for line in lines]


def _measured(one: Compared) -> Table:
    names = [Column(Text(visible(name))) for name in (one.first, one.other)]
    rows = Table("", *names, "difference", "95 % interval", "prompts", "", box=None, header_style="dim")
    for d in one.differences:
        name = f"{d.change.model} {d.first.name.replace('_', ' ')}"
        values = [_number(d.first.value), _number(d.other.value), _number(d.change.value, "+")]
        rows.add_row(name, *values, *_interval(d))
    return rows


def _interval(d: Difference) -> tuple[str, str, str]:
    low, high, count = d.change.low, d.change.high, str(d.change.count)
    if low is None or high is None:
        return ("same difference in all pairs" if d.change.count > 1 else "–"), count, ""
    return (
        f"{_number(low, '+')} to {_number(high, '+')}",
        count,
        "more" if low > 0 else "less" if high < 0 else "",
    )


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.3f}".replace("-", "−")
