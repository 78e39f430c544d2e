"""Talk to the three models of a run side by side."""

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
    """A model and its own conversation, which holds only its own answers."""

    role: str
    model: Model
    conversation: Conversation = ()

    def with_message(self, message: Message) -> Party:
        return replace(self, conversation=(*self.conversation, message))


def side_by_side(run: Run, sampling: Sampling) -> None:
    """Read prompts until an empty line or Ctrl-D; ``/new`` starts a new conversation."""
    console = Console(highlight=False)
    names = dict(_models(run))
    parties = [Party(role, load_model(name)) for role, name in names.items()]
    for role in [role for role in TRAINED if role not in names]:
        console.print(f"{role} is left out: {TRAINED[role]} is not complete.", style="dim")
    console.print(f"An empty line ends the chat; {NEW} starts a new conversation.", style="dim")
    for turn, text in enumerate(_lines(console)):
        if text == NEW:
            parties = [replace(party, conversation=()) for party in parties]
            console.print("New conversation.", style="dim")
            continue
        parties, answers = asyncio.run(
            _ask(parties, Message("user", text), replace(sampling, seed=sampling.seed + turn))
        )
        console.print(_columns(answers))


def _models(run: Run) -> Iterator[tuple[str, str]]:
    """Yield (role, name) of each model that the run has."""
    yield "start", load_recipe(str(run.folder / layout.RECIPE)).models.helpful
    for role, stage in TRAINED.items():
        if run.manifest(stage) is not None:
            yield role, f"hf:{run.stage(stage).resolve() / layout.WEIGHTS}"


def _lines(console: Console) -> Iterator[str]:
    while True:
        try:
            line = console.input("[bold]> [/bold]").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not line:
            return
        yield line


async def _ask(
    parties: list[Party], prompt: Message, sampling: Sampling
) -> tuple[list[Party], dict[str, Text]]:
    """Return the parties after one turn, and the text to show for each role."""
    turns = await asyncio.gather(*[_answer(party.with_message(prompt), sampling) for party in parties])
    after = [new or old for old, (new, _) in zip(parties, turns, strict=True)]
    return after, {old.role: shown for old, (_, shown) in zip(parties, turns, strict=True)}


async def _answer(party: Party, sampling: Sampling) -> tuple[Party | None, Text]:
    """Return the party after its answer; None if the model gave none, so that its conversation lacks the prompt."""
    try:
        text = (await party.model.generate(party.conversation, sampling)).text
    except RecordError as error:
        return None, Text(f"(no answer: {visible(str(error))})", style="dim")
    return party.with_message(Message("assistant", text)), Text(visible(text))


def _columns(answers: dict[str, Text]) -> Table:
    table = Table.grid(padding=(0, 3, 1, 0), expand=True)
    for _ in answers:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*[Text(role, style="bold cyan") for role in answers])
    table.add_row(*answers.values())
    return table
