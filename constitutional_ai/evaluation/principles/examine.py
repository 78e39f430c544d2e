"""Test the principles of a constitution with a judge, and write the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.principles.ask_principles import Answers, ask, questions_per_pair
from constitutional_ai.evaluation.principles.contrasts import contrast_pairs
from constitutional_ai.evaluation.principles.principle_report import (
    agreements,
    agreements_csv,
    principle_reports,
    principles_csv,
)
from constitutional_ai.evaluation.principles.tested import TESTED, tested_as
from constitutional_ai.models.load import loaded
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.rows import write_atomically


def examine_principles(
    constitution: str, judge: str, *, few_shots: str, changes: Sequence[str], seed: int, out: Path | None
) -> Answers:
    """Return the judge's answers under each principle; write both tables and the faults to the folder ``out``.

    ``changes`` are settings of a recipe's ``feedback``, as ``key=value``; the others are the paper's. Raises InputError
    for a model, file or setting that cannot be used, or a constitution without a principle for the method.
    """
    examples = load_few_shots(few_shots_folder(few_shots))
    recipe = load_recipe("paper", [f"models.feedback={judge}", *(f"feedback.{change}" for change in changes)])
    settings, principles = recipe.feedback, load_constitution(constitution)
    if not METHODS[settings.method].principles(principles):
        raise InputError(f"constitution '{principles.name}' has no principle for method {settings.method}.")
    pairs = contrast_pairs()
    with Progress(console=Console(stderr=True), transient=True) as bars, loaded(judge) as model:
        bar = bars.add_task("testing", total=len(pairs) * questions_per_pair(principles, settings))
        answers = asyncio.run(
            ask(
                principles,
                pairs,
                model=model,
                settings=settings,
                seed=seed,
                few_shots=examples,
                on_answer=lambda: bars.advance(bar),
            )
        )
    if out:
        out.mkdir(parents=True, exist_ok=True)
        reports = principle_reports(answers)
        faults = tested_as(principles.digest, judge, settings.method, reports)
        write_atomically(out / "principles.csv", principles_csv(reports))
        write_atomically(out / "agreement.csv", agreements_csv(agreements(answers)))
        write_atomically(out / TESTED, faults)
    return answers
