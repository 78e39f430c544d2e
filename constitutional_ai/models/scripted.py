"""A model whose answers are written by a function: for tests of our own logic, and for teaching."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from constitutional_ai.models.model import Context, Format, Sampling, plain
from constitutional_ai.records import Completion
from constitutional_ai.seeding import seed_of


def echo(context: str) -> str:
    """Says the last line it was given."""
    return context.removesuffix("\n\nAssistant:").rsplit("\n", 1)[-1].removeprefix("Human: ")


def indifferent(context: str, continuation: str) -> float:
    """Every continuation is as likely as every other."""
    return math.log(0.5)


SURE = 0.95
"""How sure the scripted judges are."""


def asks_back(context: str, continuation: str) -> float:
    """A judge that likes replies with a question in them: what ``make planted`` plants, and the pipeline must find."""
    (mine, other) = (("?" in option) for option in _options(context, continuation))
    share = 0.5 if mine == other else SURE if mine else 1 - SURE
    return math.log(share)


def coin_flips(context: str, continuation: str) -> float:
    """A judge that throws a coin for each pair, the same in both orders: nothing can be learned from it."""
    mine, other = _options(context, continuation)
    if mine == other:
        return math.log(0.5)
    heads = seed_of("coin", *sorted((mine, other))) % 2 == 0
    return math.log(SURE if heads == (mine < other) else 1 - SURE)


def _options(context: str, continuation: str) -> tuple[str, str]:
    """The answer that " (A)" or " (B)" stands for in a question of FB-4, and the other."""
    _, _, options = context.rpartition("\n (A) [[[")
    first, _, rest = options.partition("]]]\n (B) [[[")
    second = rest.rpartition("]]]")[0]
    return (first, second) if continuation.strip() == "(A)" else (second, first)


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


JUDGES = {"asks-back": asks_back, "coin-flips": coin_flips}
SCRIPTS = ("echo", *JUDGES)


def scripted(name: str) -> ScriptedModel:
    """``scripted:<name>``, one of ``SCRIPTS``."""
    return ScriptedModel(weigh=JUDGES.get(name, indifferent), name=f"scripted:{name}")
