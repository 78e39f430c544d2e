"""Score every round of a revision chain under every principle of the chain (``cai show RUN ID --scores``; SL-20).

Each round revises under its own principle, and may undo the gain of an earlier round. So the feedback model judges
every answer under all principles of the chain, with the run's method.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from math import isnan, nan
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from constitutional_ai.constitutions.constitution import Constitution, load_constitution
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError, RecordError
from constitutional_ai.models.load import loaded
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import (
    Comparison,
    Completion,
    Conversation,
    Message,
    PreferenceLabel,
    RevisionChain,
)
from constitutional_ai.report.show.record_history import records_of
from constitutional_ai.rl_cai.feedback.label import METHODS, label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible

STAGE = layout.REVISIONS
FELL = 0.1
"""Minimum fall of a probability that undoes a gain."""
ASKS = "Which of these answers better does what this request asks for? Request: "
"""Question before the revision request of a principle without a question. It is ours, not the paper's."""
MEANS = (
    "Under a principle's name: P(this answer is better than the initial one) by {model}. Bold: the round's "
    "own principle. The gate in the report shows how good a judge it is.\n"
    "PM score: that of the run's preference model; only differences have a meaning."
)

Ask = Callable[..., Awaitable[PreferenceLabel]]
"""``label``, with the model, the seed and the worked examples of the run."""
Reward = Callable[[Conversation], Awaitable[float]]


class Round(NamedTuple):
    """The scores of one answer of a chain. Round 0 is the initial answer."""

    number: int
    principle: str | None
    reward: float
    """Score of the preference model; NaN if there is none, or the revision was faulty."""
    better: Mapping[str, float]
    """P(this answer is better than the initial one) under each principle, in [0, 1]; NaN if there is no judgement."""


class Rounds(NamedTuple):
    """The scores of all answers of a chain."""

    rounds: Sequence[Round]
    method: str
    notes: Sequence[str]
    """Why numbers are missing."""

    @property
    def undone(self) -> dict[int, Round]:
        """Return by round number the first later round that lowered the round's principle by more than ``FELL``."""
        undone: dict[int, Round] = {}
        for one, later in combinations(self.rounds[1:], 2):
            if one.better[one.principle or ""] - later.better[one.principle or ""] > FELL:
                undone.setdefault(one.number, later)
        return undone


async def score_rounds(
    chain: RevisionChain, ask: Ask, constitution: Constitution, settings: Feedback, reward: Reward | None = None
) -> Rounds:
    """Compare every answer of a chain with its initial one under each of the chain's principles.

    Raises InputError if the principles have changed since.
    """
    settings, questions = _questions(chain, constitution, settings)
    initial, notes = chain.initial, []

    async def judge(number: int, name: str, answer: Completion) -> float:
        if answer.text == initial.text:  # an answer is not better than itself, whatever a model judges
            return 0.5
        pair = Comparison(f"{chain.id}.{number}.{name}", initial.prompt, answer, initial.completion)
        try:
            return (await ask(pair, constitution=questions[name], settings=settings)).probability_a
        except RecordError as error:
            notes.append(f"round {number}, {name}: {type(error).__name__}: {error}")
            return nan

    async def score(number: int, principle: str | None, answer: Completion, fault: str | None) -> Round:
        if fault is not None:
            notes.append(f"round {number} was left out: {fault}")
            return Round(number, principle, nan, dict.fromkeys(questions, nan))
        better = await asyncio.gather(*[judge(number, name, answer) for name in questions])
        talk = (*initial.prompt.conversation, Message("assistant", answer.text))
        own = await reward(talk) if reward else nan
        return Round(number, principle, own, dict(zip(questions, better, strict=True)))

    rounds = [score(0, None, initial.completion, None)]
    rounds += [score(n, r.principle, r.revised, r.fault) for n, r in enumerate(chain.revisions, start=1)]
    return Rounds(await asyncio.gather(*rounds), settings.method, notes)


def _questions(
    chain: RevisionChain, constitution: Constitution, settings: Feedback
) -> tuple[Feedback, dict[str, Constitution]]:
    """Return a constitution of one question for each principle of the chain, and the settings to ask them.

    A principle may lack the assistants that feedback by likelihood needs: then all are put as multiple choice. There
    is no clamp: it is for training and would hide a fall.
    """
    names = dict.fromkeys(revision.principle for revision in chain.revisions)
    known = {p.name: p for p in constitution.principles}
    if constitution.digest != chain.constitution or not names.keys() <= known.keys():
        raise InputError(f"the constitution has changed since {chain.id} was revised. Pass --redo {STAGE}.")
    used = [known[name] for name in names]
    if METHODS[settings.method].needs_assistants and not all(p.upheld for p in used):
        settings = settings.model_copy(update={"method": "multiple_choice"})
    with_questions = [p.model_copy(update={"preference": p.preference or f"{ASKS}{p.revision}"}) for p in used]
    alone = {p.name: Constitution(name=p.name, principles=(p,)) for p in with_questions}
    return settings.model_copy(update={"principles": 1, "clamp": (0.0, 1.0)}), alone


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
    few_shots = load_few_shots(few_shots_folder(recipe.few_shots))
    trained = run.manifest(layout.PREFERENCE_MODEL) is not None
    run.check(layout.PREFERENCE_MODEL, in_full=True)
    reward = PreferenceModel(run.stage(layout.PREFERENCE_MODEL) / layout.WEIGHTS).reward if trained else None

    async def all_chains(ask: Ask) -> list[Rounds]:
        return [await score_rounds(chain, ask, constitution, recipe.feedback, reward) for chain in chains]

    with loaded(recipe.models.feedback) as model:
        scored = asyncio.run(all_chains(partial(label, model=model, seed=recipe.seed, few_shots=few_shots)))
    means = MEANS.format(model=visible(recipe.models.feedback))
    shown = [part for chain, rounds in zip(chains, scored, strict=True) for part in parts(chain.id, rounds)]
    return Group(*shown, Text(means, style="dim"))


def parts(name: str, scored: Rounds) -> Iterator[RenderableType]:
    """Yield a chain's heading, table and notes."""
    yield Text(f"\nscores of {visible(name)} by round, judged by {scored.method}", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("round", "principle", "PM score", *scored.rounds[0].better, ""):
        table.add_column(Text(visible(title)), overflow="fold")
    undone = scored.undone
    for r in scored.rounds:
        numbers = [_number(value, bold=name == r.principle) for name, value in r.better.items()]
        by = undone.get(r.number)
        mark = f"undone by round {by.number} ({by.principle})" if by else ""
        drawn = Text(visible(r.principle or "(initial answer)"))
        table.add_row(str(r.number), drawn, _number(r.reward), *numbers, Text(visible(mark), style="bold red"))
    yield table
    for note in scored.notes:
        yield Text(f"  {visible(note)}", style="dim")


def _number(value: float, *, bold: bool = False) -> Text:
    return Text("–" if isnan(value) else f"{value:.2f}", style="bold" if bold else "")
