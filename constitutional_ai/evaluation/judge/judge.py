"""Label pairs that people have judged with a feedback model (``cai judge``).

Pairs are labelled exactly as in the pipeline, so chain_of_thought is measured after its clamp.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from constitutional_ai import machine
from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.pairs import comparison_of, load_decided_pairs, sample_pairs
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError, RecordError, TooManyFailures
from constitutional_ai.evaluation.judge.judge_report import Judged, JudgeReport, judge_report
from constitutional_ai.models.cached import CachedModel, cached
from constitutional_ai.models.load import loaded
from constitutional_ai.models.model import Model
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Comparison, Failure, GateAnswer, PreferenceLabel, Side, as_messages
from constitutional_ai.rl_cai.feedback.label import METHODS, label
from constitutional_ai.rl_cai.feedback.predicates import worse_is_more_harmful
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.meter import metered
from constitutional_ai.runs.rows import write_atomically

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("pairs"),
    TimeRemainingColumn(),
)
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
            with metered() as meter:
                try:
                    judged = GateAnswer(comparison.id, await labelled(comparison), better)
                except RecordError as error:
                    meter.forget()  # what was drawn cannot be read: another call draws anew
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
    rows: Path | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> JudgeReport:
    """Judge the pairs in ``data`` with the named model, and write the report to ``out``, and each pair to ``rows``.

    Answers are kept in ``kept_calls()``, so that the same question is not paid for again; ``say`` is told of those that
    were. ``changes`` are settings of a recipe's ``feedback``, as ``key=value``; the others are the paper's. Raises
    InputError for a model, file or setting that cannot be used, or a constitution without a principle for the method,
    and TooManyFailures if no pair could be judged.
    """
    examples = load_few_shots(few_shots_folder(few_shots))
    recipe = load_recipe("paper", [f"models.feedback={name}", *(f"feedback.{change}" for change in changes)])
    settings, principles = recipe.feedback, load_constitution(constitution)
    if not METHODS[settings.method].principles(principles):
        raise InputError(f"constitution '{principles.name}' has no principle for method {settings.method}.")
    pairs, unusable = load_decided_pairs(data, prefer="safer")
    comparisons = [comparison_of(pair, seed) for pair in sample_pairs(pairs, limit, seed)]
    for path in filter(None, (out, rows)):
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        Progress(*COLUMNS, console=Console(stderr=True), transient=True) as bars,
        loaded(name) as raw,
        cached(raw, name, kept_calls(), bars.print) as model,
    ):
        bar = bars.add_task("judging", total=len(comparisons))
        labelled = partial(
            label, model=model, constitution=principles, settings=settings, few_shots=examples, seed=seed
        )
        # first, so that a model that cannot be asked is refused before the labels have cost anything
        by_harm = asyncio.run(order_by_harm(comparisons, model)) if settings.predicates else []
        judged = asyncio.run(judge(comparisons, labelled, lambda _: bars.advance(bar)))
        say_reused(model, say)
    if rows:
        write_atomically(rows, "".join(_row_lines([pair for pair, _ in comparisons], judged)))
    report = judge_report(name, judged, unusable, by_harm)
    if out:
        write_atomically(out, json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n")
    if not report.ties.count:
        failure = next(one for one in judged if isinstance(one, Failure))
        raise TooManyFailures(
            f"{name} judged none of {len(judged)} pairs. The first failed with {failure.error}: {failure.message} "
            f"To see what this model can do, type: cai doctor {name}"
        )
    return report


def say_reused(model: Model, say: Callable[[str], None]) -> None:
    """Tell how many answers are those of earlier calls, if any are."""
    if isinstance(model, CachedModel) and model.reused:
        say(f"{model.reused} answers are those of earlier calls. To ask anew, delete {kept_calls()}")


def kept_calls() -> Path:
    """Return the file in which the answers of judges are kept. It may be deleted at any time."""
    return machine.cache_folder() / "judge.sqlite"


def _row_lines(comparisons: Sequence[Comparison], judged: Sequence[Judged]) -> Iterator[str]:
    """Yield a line of JSON for each pair: what was compared, which is better, and what the judge preferred and why."""
    for comparison, one in zip(comparisons, judged, strict=True):
        row: dict[str, Any] = {
            "id": one.id,
            "prompt": as_messages(comparison.prompt.conversation),
            "a": comparison.a.text,
            "b": comparison.b.text,
        }
        if isinstance(one, Failure):
            row |= {"failure": one.error, "message": one.message}
        else:
            row |= {
                "better": one.better,
                "right": one.right,
                "probability_right": one.probability_right,
                "judgements": [asdict(judgement) for judgement in one.label.judgements],
            }
        yield json.dumps(row, ensure_ascii=False) + "\n"
