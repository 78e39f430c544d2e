"""What every round of a revision chain did for every principle drawn in it (``cai show RUN ID --scores``; SL-20).

Each round revises under a principle of its own, and a later one may take back what an earlier one gained. So every
answer is asked about under all of the chain's principles, in the way in which the run asks its feedback model.
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
"""A probability that falls by more than this has been undone."""
ASKS = "Which of these answers better does what this request asks for? Request: "
"""Before the revision request of a principle that has no preference question. Ours, not the paper's."""
MEANS = (
    "Under a principle's name: P(this answer is better than the initial one), said by {model} when asked with that "
    "principle ({method}). Bold: the round's own principle. The gate says how good a judge it is.",
    "PM score: of the run's preference model, as it is and centred on nothing; only differences mean something.",
)

Reward = Callable[[Conversation], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Round:
    """An answer of a chain. Round 0 is the initial one."""

    number: int
    principle: str | None
    reward: float | None
    """None without a preference model, or where the revision was left out as faulty. So for ``better``."""
    better: Mapping[str, float | None]
    """P(this answer is better than the initial one) under each principle, in [0, 1]; None where the question failed."""


@dataclass(frozen=True, slots=True)
class Rounds:
    chain: RevisionChain
    rounds: tuple[Round, ...]
    notes: tuple[str, ...]
    """Why a number is missing, or was asked for in another way."""

    @property
    def undone(self) -> dict[int, Round]:
        """By number of a round, the first later one that left its principle lower by more than ``FELL``."""
        found = {}
        for one in self.rounds:
            own = one.better.get(one.principle or "")
            fell = (r for r in self.rounds[one.number + 1 :] if _fell(own, r.better.get(one.principle or "")))
            if later := next(fell, None):
                found[one.number] = later
        return found


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
    """Puts every answer of a chain against its initial one under each of the chain's principles."""
    known = {p.name: p for p in constitution.principles} if constitution.digest == chain.constitution else {}
    ways = {r.principle: _way(known.get(r.principle), settings) for r in chain.revisions}
    notes = [f"'{name}' is not what the run's constitution says now" for name, way in ways.items() if not way]
    notes += [f"{n}: asked by {w[1].method}" for n, w in ways.items() if w and w[1].method != settings.method]
    asker = _Asker(chain, ways, few_shots, model, seed, reward, notes)
    rounds = [asker.round(0, None, chain.initial.completion, None)]
    rounds += [asker.round(n, r.principle, r.revised, r.fault) for n, r in enumerate(chain.revisions, start=1)]
    return Rounds(chain, tuple(await asyncio.gather(*rounds)), tuple(notes))


@dataclass(frozen=True)
class _Asker:
    chain: RevisionChain
    ways: Mapping[str, tuple[Principle, Feedback] | None]
    few_shots: FewShots | None
    model: Model
    seed: int
    reward: Reward | None
    notes: list[str]

    async def round(self, number: int, principle: str | None, said: Completion, fault: str | None) -> Round:
        if fault is not None:
            self.notes.append(f"round {number} was left out: {fault}")
            return Round(number, principle, None, dict.fromkeys(self.ways))
        asked = await asyncio.gather(*[self._better(number, name, said) for name in self.ways])
        scored = (*self.chain.initial.prompt.conversation, Message("assistant", said.text))
        reward = await self.reward(scored) if self.reward else None
        return Round(number, principle, reward, dict(zip(self.ways, asked, strict=True)))

    async def _better(self, number: int, name: str, said: Completion) -> float | None:
        initial, way = self.chain.initial, self.ways[name]
        if way is None:
            return None
        if said.text == initial.text:  # no answer is better than itself, whatever a model says
            return 0.5
        principle, settings = way
        pair = Comparison(f"{self.chain.id}.{number}.{name}", initial.prompt, said, initial.completion)
        mine = Constitution(name=name, principles=(principle,))
        try:
            made = await label(
                pair,
                model=self.model,
                constitution=mine,
                settings=settings,
                few_shots=self.few_shots,
                seed=self.seed,
            )
        except RecordError as error:
            self.notes.append(f"round {number}, {name}: {type(error).__name__}: {error}")
            return None
        return made.probability_a


def _way(principle: Principle | None, settings: Feedback) -> tuple[Principle, Feedback] | None:
    """A principle with a question, and how to ask it: a label's clamp is for training, and would hide a fall."""
    if principle is None:
        return None
    asked = principle.model_copy(
        update={"preference": principle.preference or ASKS + (principle.revision or "")}
    )
    way = settings.model_copy(update={"principles": 1, "clamp": (0.0, 1.0)})
    if not METHODS[settings.method].principles(Constitution(name=asked.name, principles=(asked,))):
        way = way.model_copy(update={"method": "multiple_choice"})
    return asked, way


# -- what is printed


def round_scores_of(run: Run, record: str) -> RenderableType:
    """The table of every chain of one prompt. Loads the run's feedback model, and its preference model if it has one.

    Raises InputError if there is no such record, or no chain of its prompt.
    """
    prompt, records = records_of(run, record)
    if not records.chains:
        raise InputError(f"prompt {prompt.id} has no revisions to score: those of red-team prompts have.")
    recipe = load_recipe(str(run.folder / layout.RECIPE))
    constitution = load_constitution(run.folder / layout.CONSTITUTION)
    trained = run.manifest(layout.PREFERENCE_MODEL) is not None
    reward = PreferenceModel(run.stage(layout.PREFERENCE_MODEL) / layout.WEIGHTS).reward if trained else None
    with loaded(recipe.models.feedback) as model:
        asked: dict[str, Any] = {
            "constitution": constitution,
            "model": model,
            "settings": recipe.feedback,
            "few_shots": load_few_shots(few_shots_folder(recipe.few_shots)),
            "seed": recipe.seed,
        }

        async def all_chains() -> list[Rounds]:
            return [await score_rounds(chain, reward=reward, **asked) for chain in records.chains]

        scored = asyncio.run(all_chains())
    means = [
        line.format(model=visible(recipe.models.feedback), method=recipe.feedback.method) for line in MEANS
    ]
    return Group(*[part for rounds in scored for part in parts(rounds)], *[Text(m, style="dim") for m in means])


def parts(scored: Rounds) -> Iterator[RenderableType]:
    """A chain's heading, table and notes."""
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
