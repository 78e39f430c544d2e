"""Turn counts into tokens, GPU hours, memory, disk and money, by a table of rates and prices of the user's own.

docs/estimate.md has every formula.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.data.prompts import KINDS
from constitutional_ai.estimate.count_work import Amounts, Estimate, amounts_of, count_work
from constitutional_ai.estimate.memory_formula import (
    FULL,
    Shape,
    checkpoint_bytes,
    inference_bytes,
    shape_of_config,
    shape_of_size,
    state_bytes,
    training_bytes,
)
from constitutional_ai.estimate.rate_table import ModelRates, RateTable, Scale
from constitutional_ai.estimate.trial_batch import FillerModel, Trial, try_stages
from constitutional_ai.estimate.work_tokens import Role, StageWork, Work, work_of
from constitutional_ai.models.load import LOCAL_SCHEMES, model_path
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.runs import layout
from constitutional_ai.training.settings import Training

HALF = 2
"""Bytes of a bfloat16, in which models answer and are saved."""
GB = 1e9


def scaled_amounts(recipe: Recipe, scale: Scale) -> Amounts:
    """Return the rows of the recipe's files, or as many as the table says."""
    amounts = amounts_of(recipe)
    kinds = {kind: getattr(scale, kind) for kind in KINDS}
    prompts = Counter[str]({k: amounts.prompts[k] if number is None else number for k, number in kinds.items()})
    given = {"held_out": scale.held_out, "people": scale.comparisons, "reinforcement": scale.reinforcement}
    return replace(amounts, prompts=prompts, **{name: n for name, n in given.items() if n is not None})


def estimate_by_rates(recipe: Recipe, table: RateTable) -> list[Estimate]:
    """Return the estimates of a recipe by a table of rates, at the table's scale. Nothing is asked of any model.

    Raises InputError if a file of the recipe cannot be read.
    """
    constitution = apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    counted = [one for one in count_work(recipe, scaled_amounts(recipe, table.scale)) if one.records]
    trials = asyncio.run(try_stages(recipe, constitution, lambda name: nullcontext(FillerModel(name))))
    return by_rates(recipe, counted, trials, table)


def by_rates(
    recipe: Recipe, estimates: Sequence[Estimate], trials: Mapping[str, Trial], table: RateTable
) -> list[Estimate]:
    """Return the estimates with tokens, GPU hours, memory, disk and cost; what the table does not tell stays None."""
    works = work_of(recipe, estimates, trials)
    # The evaluation's answers to prompts are records as the responses are.
    records = {**trials, layout.EVALUATION: trials[layout.RESPONSES]}
    return [_stage(recipe, one, works[one.stage], records.get(one.stage), table) for one in estimates]


def _stage(recipe: Recipe, one: Estimate, work: StageWork, trial: Trial | None, table: RateTable) -> Estimate:
    hours = _sum(_hours(each, table.of(each.role)) for each in work.works)
    prices = _sum(_price(each, table) for each in work.works)
    return replace(
        one,
        read=work.total("read"),
        written=work.total("written"),
        trained=work.total("trained"),
        gpu_hours=hours,
        memory=_memory(recipe, one, work, table),
        disk=_disk(recipe, one, trial, table),
        cost=prices,
        note="tokens of answers that are as long as they may be; hours and money by your table",
    )


def _sum(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _is_served(rates: ModelRates) -> bool:
    """Return whether tokens of the model are paid for, and no GPU of one's own computes them."""
    return rates.price_read is not None or rates.price_written is not None


def _hours(work: Work, rates: ModelRates) -> float | None:
    if _is_served(rates):
        return 0.0
    parts = ((work.read, rates.prefill), (work.written, rates.decode), (work.trained, rates.train))
    if any(tokens and rate is None for tokens, rate in parts):
        return None
    return sum(tokens / rate for tokens, rate in parts if rate) / 3600


def _price(work: Work, table: RateTable) -> float | None:
    rates = table.of(work.role)
    if _is_served(rates):
        parts = ((work.read, rates.price_read), (work.written, rates.price_written))
        return None if any(p is None for _, p in parts) else sum(n * (p or 0) for n, p in parts) / 1e6
    hours = _hours(work, rates)
    return None if hours is None or table.gpu.price_per_hour is None else hours * table.gpu.price_per_hour


# -- memory and disk


def _shape(recipe: Recipe, role: str, table: RateTable) -> Shape | None:
    """Return the shape of a model; None if neither the table nor a folder tells it."""
    if size := table.of(role).size:
        return shape_of_size(size)
    name = getattr(recipe.models, role) or recipe.models.pretrained
    if not name.startswith(LOCAL_SCHEMES) or not Path(folder := model_path(name)).is_dir():
        return None
    from transformers import AutoConfig

    from constitutional_ai.models.local.exported import parameter_count
    from constitutional_ai.models.local.tokens import NO_CODE

    return shape_of_config(AutoConfig.from_pretrained(folder, **NO_CODE), parameter_count(Path(folder)))


def _memory(recipe: Recipe, one: Estimate, work: StageWork, table: RateTable) -> float | None:
    """Return the peak memory of a stage: of its training, or of the largest of its models that answer."""
    sections = {
        layout.SL_CAI_MODEL: recipe.sl_cai,
        layout.PREFERENCE_MODEL: recipe.preference_model,
        layout.RL_CAI_MODEL: recipe.rl_cai,
    }
    if settings := sections.get(one.stage):
        return _training_memory(recipe, one.stage, settings, work, table)
    together = min(recipe.concurrency, one.records) * work.longest
    own = [each.role for each in work.works if not _is_served(table.of(each.role))]
    shapes = [_shape(recipe, role, table) for role in own]
    needs = [None if shape is None else inference_bytes(shape, together) for shape in shapes]
    return None if None in needs else max((need for need in needs if need), default=0.0)


def _training_memory(
    recipe: Recipe, stage: str, settings: Training, work: StageWork, table: RateTable
) -> float | None:
    role: Role = "preference_model" if stage == layout.PREFERENCE_MODEL else "pretrained"
    if (shape := _shape(recipe, role, table)) is None:
        return None
    sequences = settings.micro_batch or settings.batch_size
    if stage == layout.PREFERENCE_MODEL:  # both sides of a pair, and a head of one number
        return training_bytes(shape, settings, 2 * sequences * settings.max_length, scored=0)
    step = training_bytes(shape, settings, sequences * settings.max_length)
    rl = recipe.rl_cai
    if stage == layout.SL_CAI_MODEL or not rl.method.samples:
        return step
    sampling = inference_bytes(shape, rl.batch_size * work.longest) - HALF * shape.parameters
    total = max(step, state_bytes(shape, settings) + sampling)
    if rl.kl_weight and settings.lora_rank is None:
        total += FULL * shape.parameters  # the reference is a second model; under LoRA it is the base
    if rl.uses_preference_model:
        scorer = _shape(recipe, "preference_model", table)
        return None if scorer is None else total + HALF * scorer.parameters
    return total


def _disk(recipe: Recipe, one: Estimate, trial: Trial | None, table: RateTable) -> float | None:
    """Return what a stage leaves in the run's folder."""
    stage, rl = one.stage, recipe.rl_cai
    if stage not in layout.TRAININGS:
        return None if trial is None else trial.bytes_each * one.records
    shape = _shape(recipe, "preference_model" if stage == layout.PREFERENCE_MODEL else "pretrained", table)
    if shape is None:
        return None
    models = 1 + (stage == layout.PREFERENCE_MODEL and recipe.preference_model.second)
    if stage == layout.RL_CAI_MODEL and rl.snapshot_every:
        models += one.records // rl.snapshot_every
    return models * HALF * shape.parameters


def largest_gpus(estimates: Iterable[Estimate], table: RateTable) -> str:
    """Return a sentence about the stage that takes the most memory; empty where no memory is known."""
    known = [one for one in estimates if one.memory]
    if not known:
        return ""
    largest = max(known, key=lambda one: one.memory or 0)
    need = (largest.memory or 0) / GB
    text = f"{largest.stage} takes the most memory: {need:,.0f} GB"
    if size := table.gpu.memory_gb:
        number = -(-need // size)
        text += f", which is {number:.0f} GPU{'s' if number > 1 else ''} of {size:g} GB with divided weights"
    return f"{text}. A lora_rank or a smaller micro_batch of a training lowers it; how: docs/estimate.md."


def checkpoints(recipe: Recipe, table: RateTable) -> float | None:
    """Return the bytes of the two checkpoints that the largest training keeps for a moment; None if unknown."""
    sections = {"pretrained": (recipe.sl_cai, recipe.rl_cai), "preference_model": (recipe.preference_model,)}
    sizes = [
        2 * checkpoint_bytes(shape, settings)
        for role, trainings in sections.items()
        for settings in trainings
        if (shape := _shape(recipe, role, table))
    ]
    return max(sizes, default=None)
