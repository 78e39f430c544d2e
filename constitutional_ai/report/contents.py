"""Read everything that a report shows from a run's directory. What does not exist yet is empty or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from constitutional_ai.constitutions.constitution import Constitution, Principle, load_constitution
from constitutional_ai.constitutions.control import describe_control
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation import revision_scores
from constitutional_ai.evaluation.answers import MedianAnswer
from constitutional_ai.evaluation.finished import finished_metrics, unfinished_parts
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import (
    Answer,
    Candidate,
    Failure,
    GateAnswer,
    Metric,
    PreferenceLabel,
    RevisionChain,
)
from constitutional_ai.rl_cai.feedback.gate import gate_questions
from constitutional_ai.rl_cai.preference_model.held_out_report import PreferenceModelReport
from constitutional_ai.runs import layout
from constitutional_ai.runs.about import read_about
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.rows import Loaded, Steps, load_json, read_steps, text_or_empty
from constitutional_ai.runs.run import Run

LABEL = {
    layout.START: "start",
    layout.SL_CAI: "SL-CAI",
    layout.RL_CAI: "RL-CAI",
    layout.PROMPTED: "prompted start",
    "sft": "SFT",
    "rlhf": "RLHF",
}
"""Names of a run's models for readers, by role or by label."""


class About(NamedTuple):
    """A description of a stage for readers who do not know the paper."""

    name: str
    title: str
    does: str


STAGES = (
    About(layout.PROMPTS, "Prompts", "a model drafts more prompts from examples"),
    About(layout.RESPONSES, "Answers", "the helpful model answers every prompt"),
    About(layout.REVISIONS, "Revisions", "it revises its answers under random principles"),
    About(layout.SL_CAI_MODEL, "SL-CAI model", "a model is finetuned on the revisions"),
    About(layout.COMPARISONS, "Pairs", "SL-CAI answers every red-team prompt twice"),
    About(layout.PREFERENCE_LABELS, "AI feedback", "a model judges which answer is better"),
    About(layout.PREFERENCE_MODEL, "Preference model", "learns to score answers"),
    About(layout.RL_CAI_MODEL, "RL-CAI model", "SL-CAI learns to score higher"),
    About(layout.EVALUATION, "Evaluation", "all answer held-out prompts"),
)


@dataclass(frozen=True)
class Stage:
    """A stage of one run."""

    about: About
    manifest: StageManifest | None
    """The manifest; None until the stage is complete."""
    records_so_far: int
    """Number of records of an incomplete stage; 0 when it is complete."""
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Contents:
    """Everything that a report shows of a run."""

    name: str
    folder: Path
    recipe: Recipe | None
    recipe_text: str
    constitution: Constitution | None
    constitution_text: str
    stages: tuple[Stage, ...]
    """The stages that the recipe makes."""
    chains: tuple[RevisionChain, ...]
    gate: tuple[GateAnswer, ...]
    gate_failures: tuple[Failure, ...]
    labels: tuple[PreferenceLabel, ...]
    preference_model: PreferenceModelReport | None
    answers: tuple[Answer, ...]
    metrics: tuple[Metric, ...]
    steps: dict[str, Steps]
    """Rows that each training logged, by stage."""
    snapshots: tuple[Path, ...]
    """Folders of RL's snapshots, by number of prompts seen."""
    evaluated: tuple[Metric, ...]
    """Metrics of the finished parts of ``cai evaluate``."""
    unfinished: tuple[str, ...]
    """Parts of ``cai evaluate`` that were started and are not finished."""
    candidates: tuple[Candidate, ...]
    """Models that ``cai evaluate`` measured."""
    parts: tuple[StageManifest, ...]
    """Complete parts of ``cai evaluate``."""
    medians: tuple[MedianAnswer, ...]
    revision_scores: tuple[revision_scores.RevisionScore, ...]
    """Preference models' scores of the run's own chains, if ``cai evaluate`` has finished them."""

    def metric(self, name: str, model: str) -> Metric | None:
        return next((m for m in self.metrics if (m.name, m.model) == (name, model)), None)

    def complete(self, stage: str) -> bool:
        """Return whether a stage is complete. No table and no figure draws on the records of another."""
        return any(one.manifest is not None for one in self.stages if one.about.name == stage)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the models that the last stage measured, or is to measure."""
        prompted = any(metric.model == layout.PROMPTED for metric in self.metrics)
        return (*layout.ROLES, layout.PROMPTED) if prompted else layout.ROLES

    @property
    def control(self) -> str | None:
        """What makes the run a control, which is not judged like others; None if it is none."""
        return describe_control(self.recipe.control if self.recipe else None, self.constitution)

    def principle(self, name: str, digest: str) -> Principle | None:
        """Return a principle, or None if the run's constitution is not the record's, which has ``digest``."""
        if self.constitution is None or self.constitution.digest != digest:
            return None
        return next((p for p in self.constitution.principles if p.name == name), None)

    @property
    def other_constitution(self) -> str | None:
        """Digest of the constitution that made the stages, if it is not the one in the run's folder."""
        digests = [s.manifest.inputs.get("constitution") for s in self.stages if s.manifest]
        own = self.constitution and self.constitution.digest
        return next((digest for digest in digests if own and digest and digest != own), None)

    @property
    def versions(self) -> list[tuple[str, dict[str, str]]]:
        """Software versions, each with the first stage that used them."""
        changes = groupby((s.manifest for s in self.stages if s.manifest), key=lambda m: m.versions)
        return [(next(manifests).stage, versions) for versions, manifests in changes]

    @property
    def finished(self) -> str | None:
        return max((s.manifest.finished for s in self.stages if s.manifest), default=None)


def read_contents(run: Run) -> Contents:
    """Read a run, of which the records of incomplete stages are left out.

    Raises InputError that names a file that cannot be read, or is no longer what its stage wrote.
    """
    for stage in STAGES:
        run.check(stage.name)
    about, recipe = read_about(run.folder), _or_none(load_recipe, run.folder / layout.RECIPE)
    left_out = {layout.PROMPTS, *(recipe.left_out if recipe else ())}
    manifests = sorted(run.stage(layout.SUITE).rglob(layout.MANIFEST))
    done = {about.name for about in STAGES if (run.stage(about.name) / layout.MANIFEST).exists()}
    gate = tuple(run.rows(layout.PREFERENCE_LABELS, GateAnswer, layout.GATE))
    gate_failures = tuple(run.rows(layout.PREFERENCE_LABELS, Failure, layout.GATE_FAILURES))
    # The gate is asked whole before the first label. It is known to be whole even if it stopped the run.
    labelling = (run.stage(layout.PREFERENCE_LABELS) / layout.RECORDS).exists()
    gate_complete = labelling or len(gate) + len(gate_failures) >= len(gate_questions())
    unfinished = unfinished_parts(run.stage(layout.SUITE))
    return Contents(
        name=str(about.get("name", run.folder.name)),
        folder=run.folder,
        recipe=recipe,
        recipe_text=text_or_empty(run.folder / layout.RECIPE),
        constitution=_or_none(load_constitution, run.folder / layout.CONSTITUTION),
        constitution_text=text_or_empty(run.folder / layout.CONSTITUTION),
        # Most runs generate no prompts.
        stages=tuple(
            _stage(run, about)
            for about in STAGES
            if about.name not in left_out or run.stage(about.name).exists()
        ),
        chains=tuple(c for c in run.rows(layout.REVISIONS, RevisionChain) if c.asks_for_harm)
        if layout.REVISIONS in done
        else (),
        gate=gate if gate_complete else (),
        gate_failures=gate_failures if gate_complete else (),
        labels=tuple(run.rows(layout.PREFERENCE_LABELS, PreferenceLabel))
        if layout.PREFERENCE_LABELS in done
        else (),
        preference_model=load_json(
            run.stage(layout.PREFERENCE_MODEL) / layout.PREFERENCE_MODEL_REPORT, PreferenceModelReport
        ),
        answers=tuple(run.rows(layout.EVALUATION, Answer)) if layout.EVALUATION in done else (),
        metrics=(load_json(run.stage(layout.EVALUATION) / layout.METRICS, tuple[Metric, ...]) or ())
        if layout.EVALUATION in done
        else (),
        steps={about.name: read_steps(run.stage(about.name) / layout.STEPS) for about in STAGES},
        snapshots=tuple(run.snapshots()),
        evaluated=finished_metrics(run.stage(layout.SUITE)),
        unfinished=unfinished,
        candidates=load_json(run.stage(layout.SUITE) / layout.MODELS, tuple[Candidate, ...]) or (),
        parts=tuple(filter(None, (load_json(path, StageManifest) for path in manifests))),
        medians=tuple(run.rows(f"{layout.SUITE}/answers", MedianAnswer, layout.MEDIANS))
        if "answers" not in unfinished
        else (),
        revision_scores=revision_scores_of(run),
    )


def revision_scores_of(run: Run) -> tuple[revision_scores.RevisionScore, ...]:
    """Return the preference models' scores of a run's own chains; none while ``cai evaluate`` is at that part."""
    if revision_scores.PART in unfinished_parts(run.stage(layout.SUITE)):
        return ()
    part, own = run.stage(layout.SUITE) / revision_scores.PART, revision_scores.label_of(run.folder)
    folders = sorted(folder.relative_to(run.folder).as_posix() for folder in part.glob("pm-*"))
    rows = (row for folder in folders for row in run.rows(folder, revision_scores.RevisionScore))
    return tuple(row for row in rows if row.run == own)


def _stage(run: Run, about: About) -> Stage:
    folder = run.stage(about.name)
    manifest = load_json(folder / layout.MANIFEST, StageManifest)
    so_far = 0 if manifest else text_or_empty(folder / layout.RECORDS).count("\n")
    return Stage(about, manifest, so_far, tuple(run.rows(about.name, Failure, layout.FAILURES)))


def _or_none(load: Callable[[str], Loaded], path: Path) -> Loaded | None:
    """Load a file, or return None if it is missing or invalid; the report then shows only its text."""
    try:
        return load(str(path)) if path.is_file() else None
    except InputError:
        return None
