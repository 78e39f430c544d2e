"""Test the principles of a constitution with a judge, and write the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.judge import judge as judging
from constitutional_ai.evaluation.principles.ask_principles import Answers, ask, questions_per_pair
from constitutional_ai.evaluation.principles.contrasts import contrast_pairs
from constitutional_ai.evaluation.principles.principle_report import (
    agreements,
    agreements_csv,
    principle_reports,
    principles_csv,
)
from constitutional_ai.evaluation.principles.tested import TESTED, tested_as
from constitutional_ai.models.cached import cached
from constitutional_ai.models.load import loaded
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.rows import write_atomically

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("answers"),
    TimeRemainingColumn(),
)
LINES = 10
"""Lines of progress where the output is no terminal."""


def examine_principles(
    constitution: str,
    judge: str,
    *,
    few_shots: str,
    changes: Sequence[str],
    seed: int,
    out: Path | None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Answers:
    """Return the judge's answers under each principle; write both tables and the faults to the folder ``out``.

    Answers are kept as those of ``cai judge``, so that a test that was stopped continues; ``say`` is told of those that
    were. ``changes`` are settings of a recipe's ``feedback``, as ``key=value``; the others are the paper's. Raises
    InputError for a model, file or setting that cannot be used, or a constitution without a principle for the method.
    """
    examples = load_few_shots(few_shots_folder(few_shots))
    recipe = load_recipe("paper", [f"models.feedback={judge}", *(f"feedback.{change}" for change in changes)])
    settings, principles = recipe.feedback, load_constitution(constitution)
    if not METHODS[settings.method].principles(principles):
        raise InputError(f"constitution '{principles.name}' has no principle for method {settings.method}.")
    pairs = contrast_pairs()
    if out:
        out.mkdir(parents=True, exist_ok=True)
    with (
        _progress(len(pairs) * questions_per_pair(principles, settings)) as (bars, advance),
        loaded(judge) as raw,
        cached(raw, judge, judging.kept_calls(), bars.print) as model,
    ):
        answers = asyncio.run(
            ask(
                principles,
                pairs,
                model=model,
                settings=settings,
                seed=seed,
                few_shots=examples,
                on_answer=advance,
            )
        )
        judging.say_reused(model, say)
    if out:
        reports = principle_reports(answers)
        faults = tested_as(principles.digest, judge, settings.method, reports)
        write_atomically(out / "principles.csv", principles_csv(reports))
        write_atomically(out / "agreement.csv", agreements_csv(agreements(answers)))
        write_atomically(out / TESTED, faults)
    return answers


@contextmanager
def _progress(total: int) -> Iterator[tuple[Progress, Callable[[], None]]]:
    """Yield a bar and what advances it by an answer. Where standard error is no terminal, lines are printed instead."""
    console, done = Console(stderr=True), 0
    with Progress(*COLUMNS, console=console, transient=True) as bars:
        bar = bars.add_task("testing", total=total)

        def advance() -> None:
            nonlocal done
            done += 1
            bars.advance(bar)
            if not console.is_terminal and done * LINES // total > (done - 1) * LINES // total:
                bars.print(f"testing: {done} of {total} answers")

        yield bars, advance
