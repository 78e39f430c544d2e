"""Test the principles and propositions of a constitution with a judge, and write the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from constitutional_ai.constitutions.constitution import Constitution, load_constitution
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.judge import judge as judging
from constitutional_ai.evaluation.principles.ask_principles import Answers, ask, questions_per_pair
from constitutional_ai.evaluation.principles.ask_propositions import (
    AskedProposition,
    ask_propositions,
    can_ask,
)
from constitutional_ai.evaluation.principles.contrasts import contrast_pairs
from constitutional_ai.evaluation.principles.principle_report import (
    agreements,
    agreements_csv,
    principle_reports,
    principles_csv,
)
from constitutional_ai.evaluation.principles.proposition_report import (
    proposition_reports,
    propositions_csv,
)
from constitutional_ai.evaluation.principles.tested import TESTED, tested_as
from constitutional_ai.models.cached import cached
from constitutional_ai.models.load import loaded
from constitutional_ai.models.model import Model
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.rl_cai.feedback.settings import Feedback
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


class Examined(NamedTuple):
    """What the judge answered; either is empty if the constitution has none that the method can use."""

    answers: Answers
    propositions: list[AskedProposition]


def examine_principles(
    constitution: str,
    judge: str,
    *,
    few_shots: str,
    changes: Sequence[str],
    seed: int,
    out: Path | None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Examined:
    """Return the judge's answers to each principle and proposition; write tables and faults to the folder ``out``.

    Answers are kept as those of ``cai judge``, so that a test that was stopped continues; ``say`` is told of those that
    were. ``changes`` are settings of a recipe's ``feedback``, as ``key=value``; the others are the paper's. Raises
    InputError for a model, file or setting that cannot be used, or a constitution with nothing for the method.
    """
    examples = load_few_shots(few_shots_folder(few_shots))
    recipe = load_recipe("paper", [f"models.feedback={judge}", *(f"feedback.{change}" for change in changes)])
    settings, loaded_from = recipe.feedback, load_constitution(constitution)
    total = _questions(loaded_from, settings)
    if out:
        out.mkdir(parents=True, exist_ok=True)

    async def both(model: Model, advance: Callable[[], None]) -> Examined:
        pairs = contrast_pairs()
        principles = await ask(
            loaded_from, pairs, model=model, settings=settings, seed=seed, few_shots=examples, on_answer=advance
        )
        if not can_ask(settings):
            return Examined(principles, [])
        propositions = await ask_propositions(
            loaded_from, pairs, model=model, settings=settings, on_answer=advance
        )
        return Examined(principles, propositions)

    with (
        _progress(total) as (bars, advance),
        loaded(judge) as raw,
        cached(raw, judge, judging.kept_calls(), bars.print) as model,
    ):
        examined = asyncio.run(both(model, advance))
        judging.say_reused(model, say)
    if loaded_from.propositions and not examined.propositions:
        say(f"The propositions are not tested: method {settings.method} reads no probability of a yes.")
    if out:
        _write(out, examined, loaded_from, judge, settings.method)
    return examined


def _questions(constitution: Constitution, settings: Feedback) -> int:
    """Return the number of answers of a test. Raises InputError if there is nothing to ask."""
    propositions = len(constitution.propositions) if can_ask(settings) else 0
    total = len(contrast_pairs()) * (questions_per_pair(constitution, settings) + 2 * propositions)
    if not total:
        raise InputError(
            f"constitution '{constitution.name}' has no principle or proposition for method {settings.method}."
        )
    return total


def _write(out: Path, examined: Examined, constitution: Constitution, judge: str, method: str) -> None:
    reports, of_propositions = principle_reports(examined.answers), proposition_reports(examined.propositions)
    if examined.answers:
        write_atomically(out / "principles.csv", principles_csv(reports))
        write_atomically(out / "agreement.csv", agreements_csv(agreements(examined.answers)))
    if of_propositions:
        write_atomically(out / "propositions.csv", propositions_csv(of_propositions))
    write_atomically(out / TESTED, tested_as(constitution, judge, method, reports, of_propositions))


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
