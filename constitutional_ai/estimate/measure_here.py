"""Measure the stages of a recipe on this machine: a few records of each, and two steps of each training.

Batches are smaller than a run's, so that times are an upper limit. What servers do is not asked for, since it costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from constitutional_ai import machine
from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.errors import InputError
from constitutional_ai.estimate.count_work import FREE, Estimate
from constitutional_ai.estimate.trial_batch import FillerModel, Trial, try_stages
from constitutional_ai.models.load import LOCAL_SCHEMES, loaded, model_path
from constitutional_ai.models.model import Model
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Checkpoint, Prompt
from constitutional_ai.rl_cai.preference_model import training_pairs
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.rl_cai.preference_model.train import fit
from constitutional_ai.rl_cai.reinforcement import dpo, reinforce
from constitutional_ai.runs import layout
from constitutional_ai.sl_cai import finetune
from constitutional_ai.training.settings import Training, TrainingJob

STEPS = 2
"""Optimiser steps of each training; the first one also allocates and compiles."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a stage."""

    seconds_each: float | None
    """Seconds of a call, or of a row of a training; None where a server would have been called."""
    memory: float | None
    """Peak in bytes."""
    disk: float | None = None
    """Bytes of a trained model."""


def measure(
    recipe: Recipe, estimates: Sequence[Estimate], constitution: Constitution, say: Callable[[str], None]
) -> list[Estimate]:
    """Return the estimates with tokens, time, memory and disk, as far as they can be measured here.

    ``say`` is called with a line for each stage. Raises InputError or ModelError.
    """
    _check_trainable(recipe)
    wanted = {one.stage for one in estimates}
    peaks = _Peaks(say)
    trials = asyncio.run(try_stages(recipe, constitution, lambda name: _opened(recipe, name), peaks.begin))
    peaks.end()
    of_stages = {stage: _of_trial(trial, peaks.of_stages.get(stage)) for stage, trial in trials.items()}
    for stage in (name for name in _served(recipe) if name in of_stages):
        of_stages[stage] = Measured(None, None)
    with TemporaryDirectory() as folder:
        of_stages |= _Trainings(recipe, trials, Path(folder), peaks).measured(wanted)
    return [_with(one, of_stages, trials) for one in estimates]


def _check_trainable(recipe: Recipe) -> None:
    """Raise InputError if the recipe's trainings cannot run on this machine."""
    if not recipe.models.pretrained.startswith(LOCAL_SCHEMES):
        raise InputError(
            f"{recipe.models.pretrained} has no weights on this machine, so its trainings cannot be measured. Set "
            "models.pretrained to a model that begins with bundled: or hf:, or give --rates in place of --measure."
        )


class _Peaks:
    """Notes the peak memory of one stage after another."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._stage = say, ""
        self.of_stages: dict[str, float | None] = {}

    def begin(self, stage: str) -> None:
        self.end()
        self._say(f"measuring {stage} …")
        self._stage = stage
        machine.forget_peak_memory()

    def end(self) -> None:
        if self._stage:
            self.of_stages[self._stage] = machine.peak_memory()
        self._stage = ""


@contextmanager
def _opened(recipe: Recipe, name: str) -> Iterator[Model]:
    """Yield a model of this machine, or filler in a server's place."""
    if not name.startswith(FREE):
        yield FillerModel()
        return
    with loaded(name, engine=recipe.engine) as model:
        yield model


def _served(recipe: Recipe) -> list[str]:
    """Return the stages whose model is a server's."""
    models = {
        layout.PROMPTS: recipe.models.prompts,
        layout.RESPONSES: recipe.models.helpful,
        layout.REVISIONS: recipe.models.helpful,
        layout.PREFERENCE_LABELS: recipe.models.feedback,
    }
    return [stage for stage, name in models.items() if not name.startswith(FREE)]


def _of_trial(trial: Trial, memory: float | None) -> Measured:
    return Measured(trial.seconds / trial.calls if trial.calls else 0.0, memory)


def _with(one: Estimate, of_stages: Mapping[str, Measured], trials: Mapping[str, Trial]) -> Estimate:
    """Return an estimate with what was measured of its stage."""
    source = (
        layout.RESPONSES if one.stage == layout.EVALUATION else one.stage
    )  # answers to prompts, as those are
    calls, trial, measured = sum(one.calls.values()), trials.get(source), of_stages.get(source)
    if measured is None:
        return replace(
            one, note=f"{one.stage} was not measured: a few prompts gave no record that fits its limits."
        )
    amount = one.records if one.stage in layout.TRAININGS else calls
    seconds = None if measured.seconds_each is None else amount * measured.seconds_each
    if one.stage == layout.RL_CAI_MODEL and calls:
        label = of_stages.get(layout.PREFERENCE_LABELS)
        each = label.seconds_each if label else None
        seconds = None if each is None or seconds is None else seconds + calls * each
    share = calls / trial.calls if trial and trial.calls else 0.0
    return replace(
        one,
        read=round(share * trial.read) if trial else 0,
        written=round(share * trial.written) if trial else 0,
        seconds=seconds,
        memory=measured.memory,
        disk=trial.bytes_each * one.records if trial else measured.disk,
        note="measured here on a few records and two steps of each training"
        if measured.seconds_each is not None
        else f"the time of a server is not measured: {one.stage}.",
    )


class _Trainings:
    """Runs two steps of each training of a recipe, each on the models of those before it."""

    def __init__(self, recipe: Recipe, trials: Mapping[str, Trial], folder: Path, peaks: _Peaks) -> None:
        self._recipe, self._trials, self._folder, self._peaks = recipe, trials, folder, peaks
        self._saved: dict[str, Checkpoint] = {}

    def measured(self, wanted: set[str]) -> dict[str, Measured]:
        """Return what was measured of each training among the stages ``wanted``."""
        recipe, rl = self._recipe, self._recipe.rl_cai
        results: dict[str, Measured] = {}
        for stage, settings, rows, train in (
            (layout.SL_CAI_MODEL, recipe.sl_cai, self._finetuning_rows(), finetune.finetune),
            (layout.PREFERENCE_MODEL, recipe.preference_model, self._pairs(), lambda job: fit(job)[0]),
            (
                layout.RL_CAI_MODEL,
                rl,
                self._prompts() if rl.method.samples else self._pairs(),
                self._reinforce if rl.method.samples else dpo.optimise,
            ),
        ):
            if stage in wanted and (seconds := self._seconds_each(stage, settings, rows, train)) is not None:
                files = Path(self._saved[stage].path).iterdir()
                size = float(sum(file.stat().st_size for file in files))
                results[stage] = Measured(seconds, self._peaks.of_stages[stage], size)
        return results

    def _seconds_each(
        self, stage: str, settings: Training, rows: Rows, train: Callable[[TrainingJob[Any]], Checkpoint]
    ) -> float | None:
        """Return the seconds of a row in a training step; None without rows that are short enough."""
        from constitutional_ai.training.datasets import within

        kept, _ = within(rows, self._base(stage), settings.max_length)
        if not kept:
            return None
        each, passes = self._rows_of_a_step(stage), 1
        rl, changes = self._recipe.rl_cai, {"batch_size": each, "epochs": 1.0, "checkpoint_steps": 10**6}
        if stage == layout.RL_CAI_MODEL and rl.method.samples:
            changes["batch_size"], passes = each * rl.answers, rl.passes
        ends: list[float] = []
        self._peaks.begin(stage)
        shown = [row | {"id": str(n)} for n, row in enumerate(islice(cycle(kept), STEPS * each))]
        self._saved[stage] = train(self._job(stage, settings.model_copy(update=changes), shown, ends))
        self._peaks.end()
        return (ends[-1] - ends[-1 - passes]) / each if len(ends) > passes else None

    def _job(self, stage: str, settings: Training, rows: Rows, ends: list[float]) -> TrainingJob[Any]:
        """Return a training that adds the time of each step's end to ``ends``."""
        folder = self._folder / stage
        folder.mkdir()
        return TrainingJob(
            rows=rows,
            base=self._base(stage),
            base_name=self._recipe.models.pretrained,
            folder=folder,
            settings=settings,
            seed=self._recipe.seed,
            on_step=lambda done, total: ends.append(time.perf_counter()),
        )

    def _rows_of_a_step(self, stage: str) -> int:
        """Return how many rows go through the model at once in a run, and so here."""
        section = {
            layout.SL_CAI_MODEL: self._recipe.sl_cai,
            layout.PREFERENCE_MODEL: self._recipe.preference_model,
            layout.RL_CAI_MODEL: self._recipe.rl_cai,
        }[stage]
        together = section.micro_batch or section.batch_size
        rl = self._recipe.rl_cai
        if stage == layout.RL_CAI_MODEL and rl.method.samples:
            # Two answers at least, and whole groups: see the checks of RLTraining.
            return max(1, together // rl.answers, -(-2 // rl.answers))
        return together

    def _base(self, stage: str) -> str | Path:
        models = self._recipe.models
        if stage == layout.RL_CAI_MODEL and layout.SL_CAI_MODEL in self._saved:
            return self._saved[layout.SL_CAI_MODEL].path
        return model_path(
            (models.preference_model if stage == layout.PREFERENCE_MODEL else None) or models.pretrained
        )

    # -- rows

    def _records(self, stage: str) -> list[Any]:
        return self._trials[stage].records if stage in self._trials else []

    def _finetuning_rows(self) -> Rows:
        responses = [r for r in self._records(layout.RESPONSES) if r.prompt.kind != "red_team"]
        return finetune.examples(self._records(layout.REVISIONS), responses, self._recipe.sl_cai.rounds)

    def _pairs(self) -> Rows:
        setting = self._recipe.preference_model.helpfulness
        rows = training_pairs.examples(self._records(layout.PREFERENCE_LABELS))
        if rows:
            return rows
        return training_pairs.helpfulness(setting.file, 8, self._recipe.seed, setting.stronger_than).rows

    def _prompts(self) -> Rows:
        prompts: list[Prompt] = [response.prompt for response in self._records(layout.RESPONSES)]
        return reinforce.examples(prompts)

    def _reinforce(self, job: TrainingJob[Any]) -> Checkpoint:
        """Train on the reward of the preference model that was measured before; the feedback model is not asked."""
        if layout.PREFERENCE_MODEL not in self._saved:
            return reinforce.reinforce(job, reward=lambda talks: [float(len(talk)) for talk in talks])
        scorer = PreferenceModel(self._saved[layout.PREFERENCE_MODEL].path)
        return reinforce.reinforce(job, reward=scorer.scores)
