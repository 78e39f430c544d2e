"""``cai judge``: a model by name, a file of judged pairs, and a report."""

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
from constitutional_ai.evaluation.judge.judge import JudgeReport, judge, judge_report
from constitutional_ai.models.load import loaded
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.rows import write_atomically


def judge_model(
    model: str,
    data: Path,
    *,
    constitution: str,
    few_shots: str,
    changes: Sequence[str],
    limit: int | None,
    seed: int,
    out: Path | None,
) -> JudgeReport:
    """``changes`` are settings of a recipe's ``feedback``, as ``key=value``; defaults are the paper's."""
    shots = load_few_shots(few_shots_folder(few_shots))
    settings = [f"models.feedback={model}", *(f"feedback.{change}" for change in changes)]
    recipe = load_recipe("paper", settings)
    pairs, unusable = load_pairs(data)
    drawn, principles = sample_pairs(pairs, limit, seed), load_constitution(constitution)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True), transient=True) as bars, loaded(model) as judging:
        bar = bars.add_task("judging", total=len(drawn))
        made = asyncio.run(
            judge(
                [comparison_of(pair, seed) for pair in drawn],
                model=judging,
                constitution=principles,
                settings=recipe.feedback,
                few_shots=shots,
                seed=seed,
                tell=lambda _: bars.advance(bar),
            )
        )
    report = judge_report(model, made, unusable)
    if out:
        write_atomically(out, json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n")
    return report
