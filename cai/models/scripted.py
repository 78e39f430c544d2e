"""A model whose answers are written by a function: for tests of our own logic, and for teaching."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cai.models.model import Context, Format, Sampling, plain
from cai.records import Completion


def echo(context: str) -> str:
    """Says the last line it was given."""
    return context.removesuffix("\n\nAssistant:").rsplit("\n", 1)[-1].removeprefix("Human: ")


def indifferent(context: str, continuation: str) -> float:
    """Every continuation is as likely as every other."""
    return math.log(0.5)


@dataclass(frozen=True)
class ScriptedModel:
    """``say`` writes the answer from the context as plain text; ``weigh`` gives a continuation's log-probability.

    >>> import asyncio
    >>> model = ScriptedModel(say=lambda context: "No, thank you.")
    >>> asyncio.run(model.generate("Tea?", Sampling())).text
    'No, thank you.'
    """

    say: Callable[[str], str] = echo
    weigh: Callable[[str, str], float] = indifferent
    name: str = "scripted"
    format: Format = "chat"

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        text = context if isinstance(context, str) else plain(context)
        said = self.say(text)
        return Completion(said, self.name, "stop", len(text.split()), len(said.split()))

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        text = context if isinstance(context, str) else plain(context)
        return [self.weigh(text, continuation) for continuation in continuations]
