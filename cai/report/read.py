"""All that a report says, read from a run's directory. What has not been made is empty or None, no error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from cai.constitution import Constitution, Principle, load_constitution
from cai.errors import InputError
from cai.recipe import Recipe
from cai.recipe_file import load_recipe
from cai.records import Answer, Candidate, Failure, GateAnswer, Metric, PreferenceLabel, Prompt, RevisionChain
from cai.rl_cai.pm_report import PreferenceModelReport
from cai.runs.manifest import StageManifest
from cai.runs.run import Run

START, SL_CAI, RL_CAI = ROLES = ("start", "sl-cai", "rl-cai")
RL = "07-rl-cai-model"
EVALUATION = "evaluation"
"""Where ``cai evaluate`` keeps what it makes of a run."""
Loaded = TypeVar("Loaded")
Steps = tuple[dict[str, Any], ...]
UNREADABLE = "{} cannot be read: {}. Make its stage anew with --redo."


MADE = ("SL-CAI", "RL-CAI")


@dataclass(frozen=True, slots=True)
class Median:
    """Of a model's answers to one prompt, the one in the middle by score (EV-18): a row of ``cai evaluate``."""

    id: str
    model: str
    preference_model: str
    prompt: Prompt
    text: str
    score: float
    of: int
    """Answers that were scored."""


class About(NamedTuple):
    """What a stage is, for somebody who has not read the paper."""

    name: str
    title: str
    does: str
    models: tuple[str, ...]
    """Keys of the recipe, or our own models by their names."""


STAGES = (
    About("00-prompts", "Prompts", "a model drafts more prompts from examples", ("models.prompts",)),
    About("01-responses", "Answers", "the helpful model answers every prompt", ("models.helpful",)),
    About("02-revisions", "Revisions", "it revises its answers under drawn principles", ("models.helpful",)),
    About("03-sl-cai-model", "SL-CAI model", "a model is finetuned on the revisions", ("models.pretrained",)),
    About("04-comparisons", "Pairs", "SL-CAI answers every red-team prompt twice", MADE[:1]),
    About("05-preference-labels", "AI feedback", "a model says which answer is better", ("models.feedback",)),
    About("06-preference-model", "Preference model", "learns to score answers", ("models.preference_model",)),
    About("07-rl-cai-model", "RL-CAI model", "SL-CAI learns to score higher", (MADE[0], "preference model")),
    About("08-evaluation", "Evaluation", "all answer held-out prompts", ("models.helpful", *MADE)),
)


@dataclass(frozen=True)
class Stage:
    about: About
    manifest: StageManifest | None
    """None while it is not complete."""
    models: tuple[str, ...]
    begun: int
    """Records there so far, when it is not complete."""
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Contents:
    """What lies in a run's directory."""

    name: str
    folder: Path
    recipe: Recipe | None
    recipe_text: str
    constitution: Constitution | None
    constitution_text: str
    stages: tuple[Stage, ...]
    chains: tuple[RevisionChain, ...]
    gate: tuple[GateAnswer, ...]
    gate_failures: tuple[Failure, ...]
    labels: tuple[PreferenceLabel, ...]
    preference_model: PreferenceModelReport | None
    answers: tuple[Answer, ...]
    metrics: tuple[Metric, ...]
    steps: dict[str, Steps]
    """What each training logged."""
    snapshots: tuple[Path, ...]
    """Whole models that RL left on its way, each named for the prompts seen."""
    evaluated: tuple[Metric, ...]
    """What ``cai evaluate`` measured, if it was asked to."""
    candidates: tuple[Candidate, ...]
    """The models that it measured."""
    parts: tuple[StageManifest, ...]
    """Its parts that are complete."""
    medians: tuple[Median, ...]

    def metric(self, name: str, model: str) -> Metric | None:
        return next((m for m in self.metrics if (m.name, m.model) == (name, model)), None)

    def principle(self, name: str, digest: str) -> Principle | None:
        """None when the run's constitution is not the one that the record was made under."""
        if self.constitution is None or self.constitution.digest != digest:
            return None
        return next((p for p in self.constitution.principles if p.name == name), None)

    @property
    def versions(self) -> list[tuple[str, dict[str, str]]]:
        """Software by the first stage that used it."""
        found: list[tuple[str, dict[str, str]]] = []
        for manifest in (s.manifest for s in self.stages if s.manifest):
            if not found or found[-1][1] != manifest.versions:
                found.append((manifest.stage, manifest.versions))
        return found

    @property
    def finished(self) -> str | None:
        return max((s.manifest.finished for s in self.stages if s.manifest), default=None)


def read_contents(run: Run) -> Contents:
    """Raises InputError naming the file when one is there and cannot be read."""
    recipe = _or_none(load_recipe, run.folder / "recipe.yaml")
    return Contents(
        name=_name(run),
        folder=run.folder,
        recipe=recipe,
        recipe_text=_text(run.folder / "recipe.yaml"),
        constitution=_or_none(load_constitution, run.folder / "constitution.yaml"),
        constitution_text=_text(run.folder / "constitution.yaml"),
        # No run needs to generate prompts.
        stages=tuple(
            _stage(run, about, recipe)
            for about in STAGES
            if about.name != "00-prompts" or run.stage(about.name).exists()
        ),
        chains=tuple(run.rows("02-revisions", RevisionChain)),
        gate=tuple(run.rows("05-preference-labels", GateAnswer, "gate.jsonl")),
        gate_failures=tuple(run.rows("05-preference-labels", Failure, "failed-gate.jsonl")),
        labels=tuple(run.rows("05-preference-labels", PreferenceLabel)),
        preference_model=whole(run.stage("06-preference-model") / "report.json", PreferenceModelReport),
        answers=tuple(run.rows("08-evaluation", Answer)),
        metrics=whole(run.stage("08-evaluation") / "metrics.json", tuple[Metric, ...]) or (),
        steps={about.name: logged(run.stage(about.name) / "metrics.jsonl") for about in STAGES},
        snapshots=tuple(p for p in sorted(run.stage(RL).glob("snapshots/*")) if p.name.isdecimal()),
        evaluated=whole(run.stage(EVALUATION) / "metrics.json", tuple[Metric, ...]) or (),
        candidates=whole(run.stage(EVALUATION) / "models.json", tuple[Candidate, ...]) or (),
        parts=tuple(_parts(run)),
        medians=tuple(run.rows(f"{EVALUATION}/answers", Median, "medians.jsonl")),
    )


def _stage(run: Run, about: About, recipe: Recipe | None) -> Stage:
    folder = run.stage(about.name)
    manifest = whole(folder / "stage.json", StageManifest)
    names = manifest.config if manifest else {}
    if recipe:
        names = {f"models.{k}": v for k, v in recipe.models.model_dump().items()} | names
    own = names.get("models.preference_model") or names.get("models.pretrained", "models.pretrained")
    names = names | {"models.preference_model": own}
    models = tuple(str(names.get(m, m)) for m in about.models)
    begun = 0 if manifest else _text(folder / "records.jsonl").count("\n")
    return Stage(about, manifest, models, begun, tuple(run.rows(about.name, Failure, "failures.jsonl")))


def _parts(run: Run) -> Iterator[StageManifest]:
    for path in sorted(run.stage(EVALUATION).rglob("stage.json")):
        if made := whole(path, StageManifest):
            yield made


def _name(run: Run) -> str:
    about = whole(run.folder / "run.json", dict[str, Any]) or {}
    return str(about.get("name", run.folder.name))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _or_none(load: Callable[[str], Loaded], path: Path) -> Loaded | None:
    """A report of a run whose recipe was edited into nonsense still shows its text."""
    try:
        return load(str(path)) if path.is_file() else None
    except InputError:
        return None


def whole(path: Path, kind: type[Loaded]) -> Loaded | None:
    if not path.is_file():
        return None
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(UNREADABLE.format(path, error.errors()[0]["msg"])) from error


def logged(path: Path) -> Steps:
    """Logged steps, without a last line that is still being written."""
    lines = [line for line in _text(path).splitlines(keepends=True) if line.endswith("\n")]
    try:
        return tuple(row for row in map(json.loads, lines) if isinstance(row, dict))
    except json.JSONDecodeError as error:
        raise InputError(UNREADABLE.format(path, error)) from error
