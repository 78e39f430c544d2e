"""All that a report says, read from a run's directory. What has not been made is empty or None, no error."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from cai.constitution import Constitution, Principle, load_constitution
from cai.errors import InputError
from cai.intervals import rate
from cai.recipe import Recipe
from cai.recipe_file import load_recipe
from cai.records import Answer, Failure, GateAnswer, Kind, Metric, PreferenceLabel, Prompt, RevisionChain
from cai.rl_cai.gate import CHANCE, GateResult, gate_result
from cai.rl_cai.pm_report import PreferenceModelReport
from cai.runs.manifest import StageManifest
from cai.runs.run import Run

START, SL_CAI, RL_CAI = ROLES = ("start", "sl-cai", "rl-cai")
RL = "07-rl-cai-model"
Loaded = TypeVar("Loaded")
Steps = tuple[dict[str, Any], ...]
UNREADABLE = "{} cannot be read: {}. Make its stage anew with --redo."


MADE = ("SL-CAI", "RL-CAI")


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
    labels: tuple[PreferenceLabel, ...]
    preference_model: PreferenceModelReport | None
    answers: tuple[Answer, ...]
    metrics: tuple[Metric, ...]
    steps: dict[str, Steps]
    """What each training logged."""
    snapshots: tuple[Path, ...]
    """Whole models that RL left on its way, each named for the prompts seen."""

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
        labels=tuple(run.rows("05-preference-labels", PreferenceLabel)),
        preference_model=whole(run.stage("06-preference-model") / "report.json", PreferenceModelReport),
        answers=tuple(run.rows("08-evaluation", Answer)),
        metrics=whole(run.stage("08-evaluation") / "metrics.json", tuple[Metric, ...]) or (),
        steps={about.name: logged(run.stage(about.name) / "metrics.jsonl") for about in STAGES},
        snapshots=tuple(p for p in sorted(run.stage(RL).glob("snapshots/*")) if p.name.isdecimal()),
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


# -- the gate and the labels


class GateView(NamedTuple):
    result: GateResult
    by_tag: list[Metric]
    no_flips: str | None
    """Why there is no flip rate."""


def gate_view(contents: Contents) -> GateView | None:
    if not contents.gate:
        return None
    by_tag: dict[str, list[bool]] = defaultdict(list)
    for answer in contents.gate:
        for tag in answer.label.comparison.prompt.tags:
            by_tag[tag].append(answer.probability_right > CHANCE)
    tags = [rate("gate_accuracy", tag, right) for tag, right in sorted(by_tag.items())]
    result = gate_result("feedback", contents.gate)
    return GateView(result, tags, _no_flips([a.label for a in contents.gate]))


class PrincipleUse(NamedTuple):
    name: str
    drawn: int
    """Comparisons that it was drawn for."""
    decided: float
    """Mean |P - 0.5| over its judgements: 0 is a coin, 0.5 is certain."""


class FeedbackView(NamedTuple):
    labels: int
    decided: float
    clear: Metric
    """Share of labels beyond 0.1 or 0.9."""
    open: Metric
    """Share of labels within 0.1 of a tie."""
    flips: Metric
    no_flips: str | None
    principles: list[PrincipleUse]


def feedback_view(labels: Sequence[PreferenceLabel]) -> FeedbackView | None:
    if not labels:
        return None
    leans = [abs(label.probability_a - 0.5) for label in labels]
    flips = [label.flipped for label in labels]
    return FeedbackView(
        len(labels),
        fmean(leans),
        rate("clear", "feedback", [lean > 0.4 for lean in leans]),
        rate("open", "feedback", [lean < 0.1 for lean in leans]),
        rate("flips", "feedback", [f for f in flips if f is not None]),
        _no_flips(labels),
        _principles(labels),
    )


def _principles(labels: Iterable[PreferenceLabel]) -> list[PrincipleUse]:
    drawn: dict[str, set[str]] = defaultdict(set)
    leans: dict[str, list[float]] = defaultdict(list)
    for label in labels:
        for judgement in label.judgements:
            drawn[judgement.principle].add(label.id)
            leans[judgement.principle].append(abs(judgement.probability_a - 0.5))
    used = [PrincipleUse(name, len(ids), fmean(leans[name])) for name, ids in drawn.items()]
    return sorted(used, key=lambda use: (-use.drawn, use.name))


def _no_flips(labels: Sequence[PreferenceLabel]) -> str | None:
    if any(label.flipped is not None for label in labels):
        return None
    if all(label.method == "likelihood" for label in labels):
        return "the likelihood method weighs each answer alone, so there is no order that could matter"
    return "each question was put in one order only"


# -- samples, chosen by rule so that nobody picks the pretty ones


class Sample(NamedTuple):
    prompt: Prompt
    why: str
    answers: dict[str, Answer]


def samples(answers: Sequence[Answer], kind: Kind, tags: int = 0) -> list[Sample]:
    """The prompts with the lowest, median and highest score, then the median of some kinds of harm."""
    by_prompt: dict[str, dict[str, Answer]] = defaultdict(dict)
    for answer in answers:
        if answer.response.prompt.kind == kind:
            by_prompt[answer.response.prompt.id][answer.model] = answer
    ranked = sorted(by_prompt.items(), key=lambda item: (_score(item[1]), item[0]))
    chosen = {ranked[at][0]: why for at, why in _places(len(ranked))}
    for tag in _spread(sorted({t for name, found in ranked for t in _prompt(found).tags}), tags):
        rest = [name for name, found in ranked if name not in chosen and tag in _prompt(found).tags]
        if rest:
            chosen[rest[len(rest) // 2]] = "median score of its kind"
    return [Sample(_prompt(by_prompt[name]), why, by_prompt[name]) for name, why in chosen.items()]


def _places(count: int) -> list[tuple[int, str]]:
    wanted = [(0, "lowest score"), (count // 2, "median score"), (count - 1, "highest score")]
    return wanted if count > 2 else [(at, "all there are") for at in range(count)]


def _spread(items: Sequence[str], count: int) -> list[str]:
    """``count`` items at even distances."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items[:count])


def _prompt(found: dict[str, Answer]) -> Prompt:
    return next(iter(found.values())).response.prompt


def _score(found: dict[str, Answer]) -> float:
    """The score of the answer of the last model that has one."""
    scores = [found[role].reward for role in ROLES if role in found]
    return next((s for s in reversed(scores) if s is not None), 0.0)


def sample_chains(chains: Sequence[RevisionChain], count: int = 3) -> list[RevisionChain]:
    """Ids are hashes, so the first of them are as good as drawn."""
    return sorted(chains, key=lambda chain: chain.id)[:count]
