"""Talk to the three models of a run side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from constitutional_ai.cli.app import terminal
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


def side_by_side(run: Run, sampling: Sampling) -> None:
    """Read prompts until an empty line or Ctrl-D; ``/new`` starts a new conversation.

    Each model's conversation contains only its own answers, and no prompt that it could not answer.
    """
    console = terminal()
    models = {role: load_model(name) for role, name in _models(run)}
    for role in [role for role in TRAINED if role not in models]:
        console.print(f"{role} is left out: {TRAINED[role]} is not complete.", style="dim")
    console.print(f"An empty line ends the chat; {NEW} starts a new conversation.", style="dim")
    talks: dict[str, Conversation] = dict.fromkeys(models, ())
    for turn, text in enumerate(_lines(console)):
        if text == NEW:
            talks = dict.fromkeys(models, ())
            console.print("New conversation.", style="dim")
            continue
        prompted = {role: (*talk, Message("user", text)) for role, talk in talks.items()}
        answers = asyncio.run(_ask(models, prompted, replace(sampling, seed=sampling.seed + turn)))
        for role, answer in answers.items():
            if isinstance(answer, str):
                talks[role] = (*prompted[role], Message("assistant", answer))
        console.print(_columns(answers) if console.is_terminal else _lines_of(answers))


def _models(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the role and the name of each model of the run."""
    yield "start", load_recipe(str(run.folder / layout.RECIPE)).models.helpful
    for role, stage in TRAINED.items():
        if run.manifest(stage) is not None:
            run.check(stage, in_full=True)
            yield role, f"hf:{run.stage(stage).resolve() / layout.WEIGHTS}"


def _lines(console: Console) -> Iterator[str]:
    with suppress(EOFError, KeyboardInterrupt):
        while line := console.input("> ").strip():
            yield line
    console.print()


async def _ask(
    models: Mapping[str, Model], talks: Mapping[str, Conversation], sampling: Sampling
) -> dict[str, str | RecordError]:
    """Return each model's answer, or why it gave none."""

    async def answer(role: str) -> str | RecordError:
        try:
            return (await models[role].generate(talks[role], sampling)).text
        except RecordError as error:
            return error

    return dict(zip(models, await asyncio.gather(*map(answer, models)), strict=True))


def _lines_of(answers: Mapping[str, str | RecordError]) -> str:
    return "\n".join(
        f"{role}: {a if isinstance(a, str) else f'(no answer: {a})'}" for role, a in answers.items()
    )


def _columns(answers: Mapping[str, str | RecordError]) -> Table:
    table = Table(box=None, padding=(0, 3, 1, 0), expand=True, header_style="bold cyan")
    for role in answers:
        table.add_column(role, ratio=1, overflow="fold")
    shown = [a if isinstance(a, str) else f"(no answer: {a})" for a in answers.values()]
    table.add_row(*[Text(visible(text)) for text in shown])
    return table
