"""Score every round of a revision chain under every principle of the chain (``cai show RUN ID --scores``; SL-20).

Each round revises under its own principle, and may undo the gain of an earlier round. So the feedback model judges
every answer under all principles of the chain, with the run's method.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from constitutional_ai.constitutions.constitution import Constitution, Principle, load_constitution
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError, RecordError
from constitutional_ai.models.load import loaded
from constitutional_ai.models.model import Model
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Comparison, Completion, Conversation, Message, RevisionChain
from constitutional_ai.report.show.record_history import records_of
from constitutional_ai.rl_cai.feedback.label import METHODS, label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots, load_few_shots
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible

FELL = 0.1
"""Minimum fall of a probability that undoes a gain."""
ASKS = "Which of these answers better does what this request asks for? Request: "
"""Question before the revision request of a principle without a question. It is ours, not the paper's."""
MEANS = (
    "Under a principle's name: P(this answer is better than the initial one) by {model} ({method}). Bold: the round's "
    "own principle. The gate in the report shows how good a judge it is.",
    "PM score: that of the run's preference model; only differences have a meaning.",
)

Reward = Callable[[Conversation], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Round:
    """The scores of one answer of a chain. Round 0 is the initial answer."""

    number: int
    principle: str | None
    reward: float | None
    """Score of the preference model; None if there is none, or the revision was faulty."""
    better: Mapping[str, float | None]
    """P(this answer is better than the initial one) under each principle, in [0, 1]; None if there is no judgement."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """The scores of all answers of a chain."""

    chain: RevisionChain
    rounds: tuple[Round, ...]
    notes: tuple[str, ...]
    """Why numbers are missing, or come from another method."""

    @property
    def undone(self) -> dict[int, Round]:
        """Return by round number the first later round that lowered the round's principle by more than ``FELL``."""
        undone = {}
        for one in self.rounds:
            own = one.better.get(one.principle or "")
            fell = (r for r in self.rounds[one.number + 1 :] if _fell(own, r.better.get(one.principle or "")))
            if later := next(fell, None):
                undone[one.number] = later
        return undone


def _fell(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and before - after > FELL


async def score_rounds(
    chain: RevisionChain,
    *,
    constitution: Constitution,
    model: Model,
    settings: Feedback,
    seed: int,
    few_shots: FewShots | None = None,
    reward: Reward | None = None,
) -> Rounds:
    """Compare every answer of a chain with its initial one under each of the chain's principles."""
    known = {p.name: p for p in constitution.principles} if constitution.digest == chain.constitution else {}
    ways = {r.principle: _way(known.get(r.principle), settings) for r in chain.revisions}
    notes = [f"'{name}' has changed in the run's constitution since" for name, way in ways.items() if not way]
    notes += [f"{n}: judged by {w[1].method}" for n, w in ways.items() if w and w[1].method != settings.method]
    initial = chain.initial

    async def judged(number: int, name: str, answer: Completion) -> float | None:
        way = ways[name]
        if way is None:
            return None
        if answer.text == initial.text:  # an answer is not better than itself, whatever a model judges
            return 0.5
        pair = Comparison(f"{chain.id}.{number}.{name}", initial.prompt, answer, initial.completion)
        options: dict[str, Any] = {"model": model, "few_shots": few_shots, "seed": seed, "settings": way[1]}
        alone = Constitution(name=name, principles=way[:1])
        try:
            return (await label(pair, constitution=alone, **options)).probability_a
        except RecordError as error:
            notes.append(f"round {number}, {name}: {type(error).__name__}: {error}")
            return None

    async def score(number: int, principle: str | None, answer: Completion, fault: str | None) -> Round:
        if fault is not None:
            notes.append(f"round {number} was left out: {fault}")
            return Round(number, principle, None, dict.fromkeys(ways))
        better = await asyncio.gather(*[judged(number, name, answer) for name in ways])
        talk = (*initial.prompt.conversation, Message("assistant", answer.text))
        return Round(
            number, principle, await reward(talk) if reward else None, dict(zip(ways, better, strict=True))
        )

    rounds = [score(0, None, initial.completion, None)]
    rounds += [score(n, r.principle, r.revised, r.fault) for n, r in enumerate(chain.revisions, start=1)]
    return Rounds(chain, tuple(await asyncio.gather(*rounds)), tuple(notes))


def _way(principle: Principle | None, settings: Feedback) -> tuple[Principle, Feedback] | None:
    """Return a principle with a question, and settings without the clamp, which is for training and would hide a
    fall."""
    if principle is None:
        return None
    question = principle.preference or f"{ASKS}{principle.revision}"
    with_question = principle.model_copy(update={"preference": question})
    way = settings.model_copy(update={"principles": 1, "clamp": (0.0, 1.0)})
    if METHODS[settings.method].needs_assistants and not principle.upheld:
        way = way.model_copy(update={"method": "multiple_choice"})
    return with_question, way


# -- what is printed


def round_scores_of(run: Run, record: str) -> RenderableType:
    """Return the table of every chain of one prompt, for which the feedback and preference models are loaded.

    Raises InputError if there is no such record, or its prompt has no chain.
    """
    prompt, records = records_of(run, record)
    chains = [one for one in records if isinstance(one, RevisionChain)]
    if not chains:
        raise InputError(f"prompt {prompt.id} has no revisions to score. Red-team prompts have them.")
    recipe = load_recipe(str(run.folder / layout.RECIPE))
    constitution = load_constitution(run.folder / layout.CONSTITUTION)
    trained = run.manifest(layout.PREFERENCE_MODEL) is not None
    reward = PreferenceModel(run.stage(layout.PREFERENCE_MODEL) / layout.WEIGHTS).reward if trained else None
    with loaded(recipe.models.feedback) as model:
        options: dict[str, Any] = {
            "constitution": constitution,
            "model": model,
            "settings": recipe.feedback,
            "few_shots": load_few_shots(few_shots_folder(recipe.few_shots)),
            "seed": recipe.seed,
        }

        async def all_chains() -> list[Rounds]:
            return [await score_rounds(chain, reward=reward, **options) for chain in chains]

        scored = asyncio.run(all_chains())
    means = [
        line.format(model=visible(recipe.models.feedback), method=recipe.feedback.method) for line in MEANS
    ]
    return Group(*[part for rounds in scored for part in parts(rounds)], *[Text(m, style="dim") for m in means])


def parts(scored: Rounds) -> Iterator[RenderableType]:
    """Yield a chain's heading, table and notes."""
    yield Text(f"\nscores of {visible(scored.chain.id)} by round", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    names = list(scored.rounds[0].better)
    for title in ("round", "principle", "PM score", *names, ""):
        table.add_column(Text(visible(title)), overflow="fold")
    undone = scored.undone
    for r in scored.rounds:
        numbers = [_number(r.better[name], bold=name == r.principle) for name in names]
        by = undone.get(r.number)
        mark = f"undone by round {by.number} ({by.principle})" if by else ""
        drawn = Text(visible(r.principle or "(initial answer)"))
        table.add_row(str(r.number), drawn, _number(r.reward), *numbers, Text(visible(mark), style="bold red"))
    yield table
    for note in scored.notes:
        yield Text(f"  {visible(note)}", style="dim")


def _number(value: float | None, *, bold: bool = False) -> Text:
    return Text("–" if value is None else f"{value:.2f}", style="bold" if bold else "")
