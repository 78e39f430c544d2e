"""Label pairs that people have judged with a feedback model (``cai judge``).

Pairs are labelled exactly as in the pipeline, so chain_of_thought is measured after its clamp.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.pairs import comparison_of, load_decided_pairs, sample_pairs
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError, RecordError
from constitutional_ai.evaluation.judge.judge_report import Judged, JudgeReport, judge_report
from constitutional_ai.models.load import loaded
from constitutional_ai.models.model import Model
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Comparison, Failure, GateAnswer, PreferenceLabel, Side
from constitutional_ai.rl_cai.feedback.label import METHODS, label
from constitutional_ai.rl_cai.feedback.predicates import worse_is_more_harmful
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.rows import write_atomically

AT_ONCE = 64
"""Maximum number of pairs that are labelled at the same time."""


async def judge(
    comparisons: Sequence[tuple[Comparison, Side]],
    labelled: Callable[[Comparison], Awaitable[PreferenceLabel]],
    on_judged: Callable[[Judged], None] = lambda judged: None,
) -> list[Judged]:
    """Label each comparison, and return its label or failure, in order. ``comparisons`` also give the better side.

    As in a run, a RecordError is a failure and never a label; any other error is raised. ``on_judged`` is called after
    each comparison.
    """
    free = asyncio.Semaphore(AT_ONCE)

    async def one(comparison: Comparison, better: Side) -> Judged:
        judged: Judged
        async with free:
            try:
                judged = GateAnswer(comparison.id, await labelled(comparison), better)
            except RecordError as error:
                judged = Failure(comparison.id, type(error).__name__, str(error))
        on_judged(judged)
        return judged

    return await asyncio.gather(*[one(*each) for each in comparisons])


async def order_by_harm(
    comparisons: Sequence[tuple[Comparison, Side]], model: Model
) -> list[bool | Failure | None]:
    """Return for each comparison whether the worse answer is read as more harmful; None for a tie."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(comparison: Comparison, better: Side) -> bool | Failure | None:
        async with free:
            try:
                return await worse_is_more_harmful(comparison, better, model)
            except RecordError as error:
                return Failure(comparison.id, type(error).__name__, str(error))

    return await asyncio.gather(*[one(*each) for each in comparisons])


def judge_model(
    name: str,
    data: Path,
    *,
    constitution: str,
    few_shots: str,
    changes: Sequence[str],
    limit: int | None,
    seed: int,
    out: Path | None,
) -> JudgeReport:
    """Judge the pairs in ``data`` with the named model, and write the report to ``out``.

    ``changes`` are settings of a recipe's ``feedback``, as ``key=value``; the others are the paper's. Raises InputError
    for a model, file or setting that cannot be used, or a constitution without a principle for the method.
    """
    examples = load_few_shots(few_shots_folder(few_shots))
    recipe = load_recipe("paper", [f"models.feedback={name}", *(f"feedback.{change}" for change in changes)])
    settings, principles = recipe.feedback, load_constitution(constitution)
    if not METHODS[settings.method].principles(principles):
        raise InputError(f"constitution '{principles.name}' has no principle for method {settings.method}.")
    pairs, unusable = load_decided_pairs(data, prefer="safer")
    comparisons = [comparison_of(pair, seed) for pair in sample_pairs(pairs, limit, seed)]
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True), transient=True) as bars, loaded(name) as model:
        bar = bars.add_task("judging", total=len(comparisons))
        labelled = partial(
            label, model=model, constitution=principles, settings=settings, few_shots=examples, seed=seed
        )
        # first, so that a model that cannot be asked is refused before the labels have cost anything
        by_harm = asyncio.run(order_by_harm(comparisons, model)) if settings.predicates else []
        judged = asyncio.run(judge(comparisons, labelled, lambda _: bars.advance(bar)))
    report = judge_report(name, judged, unusable, by_harm)
    if out:
        write_atomically(out, json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n")
    return report
