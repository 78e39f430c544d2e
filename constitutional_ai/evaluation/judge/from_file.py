"""``cai judge``: measure a model on a file of judged pairs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.pairs import comparison_of, load_pairs, sample_pairs
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.evaluation.judge.judge import judge
from constitutional_ai.evaluation.judge.judge_report import JudgeReport, judge_report
from constitutional_ai.models.load import loaded
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.rows import write_atomically


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
    for a model, file or setting that cannot be used.
    """
    examples = load_few_shots(few_shots_folder(few_shots))
    recipe = load_recipe("paper", [f"models.feedback={name}", *(f"feedback.{change}" for change in changes)])
    pairs, unusable = load_pairs(data)
    sample, principles = sample_pairs(pairs, limit, seed), load_constitution(constitution)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True), transient=True) as bars, loaded(name) as model:
        bar = bars.add_task("judging", total=len(sample))
        judged = asyncio.run(
            judge(
                [comparison_of(pair, seed) for pair in sample],
                model=model,
                constitution=principles,
                settings=recipe.feedback,
                few_shots=examples,
                seed=seed,
                on_judged=lambda _: bars.advance(bar),
            )
        )
    report = judge_report(name, judged, unusable)
    if out:
        write_atomically(out, json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n")
    return report
