"""The three models of a run, asked the same thing, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from constitutional_ai.errors import RecordError
from constitutional_ai.models.load import load_model
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Conversation, Message
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible

TRAINED = {"SL-CAI": layout.SL_CAI_MODEL, "RL-CAI": layout.RL_CAI_MODEL}
NEW = "/new"


@dataclass(frozen=True)
class Party:
    """A model and its own conversation, which holds its answers and not the others'."""

    role: str
    model: Model
    conversation: Conversation = ()

    def heard(self, said: str) -> Party:
        return replace(self, conversation=(*self.conversation, Message("user", said)))

    def answered(self, said: str) -> Party:
        return replace(self, conversation=(*self.conversation, Message("assistant", said)))


def side_by_side(run: Run, sampling: Sampling) -> None:
    """Asks until an empty line or Ctrl-D; ``/new`` forgets the conversation."""
    console = Console(highlight=False)
    names = dict(_models(run))
    parties = [Party(role, load_model(name)) for role, name in names.items()]
    for role in [role for role in TRAINED if role not in names]:
        console.print(f"{role} is left out: {TRAINED[role]} is not complete.", style="dim")
    console.print(f"An empty line leaves; {NEW} begins anew.", style="dim")
    for turn, said in enumerate(_lines(console)):
        if said == NEW:
            parties = [replace(party, conversation=()) for party in parties]
            console.print("Forgotten.", style="dim")
            continue
        parties, answers = asyncio.run(_ask(parties, said, replace(sampling, seed=sampling.seed + turn)))
        console.print(_columns(answers))


def _models(run: Run) -> Iterator[tuple[str, str]]:
    """(role, name) of each model that the run has."""
    yield "start", load_recipe(str(run.folder / layout.RECIPE)).models.helpful
    for role, stage in TRAINED.items():
        if run.manifest(stage) is not None:
            yield role, f"hf:{run.stage(stage).resolve() / layout.WEIGHTS}"


def _lines(console: Console) -> Iterator[str]:
    while True:
        try:
            said = console.input("[bold]> [/bold]").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not said:
            return
        yield said


async def _ask(parties: list[Party], said: str, sampling: Sampling) -> tuple[list[Party], dict[str, Text]]:
    """The parties after one turn, and what each is to be shown to have said."""
    answers = await asyncio.gather(*[_answer(party.heard(said), sampling) for party in parties])
    after = [
        party.heard(said).answered(a) if a is not None else party
        for party, (a, _) in zip(parties, answers, strict=True)
    ]
    return after, {party.role: shown for party, (_, shown) in zip(parties, answers, strict=True)}


async def _answer(party: Party, sampling: Sampling) -> tuple[str | None, Text]:
    """A model that cannot answer says why, and forgets that it was asked."""
    try:
        said = (await party.model.generate(party.conversation, sampling)).text
    except RecordError as error:
        return None, Text(f"(no answer: {visible(str(error))})", style="dim")
    return said, Text(visible(said))


def _columns(answers: dict[str, Text]) -> Table:
    table = Table.grid(padding=(0, 3, 1, 0), expand=True)
    for _ in answers:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*[Text(role, style="bold cyan") for role in answers])
    table.add_row(*answers.values())
    return table
