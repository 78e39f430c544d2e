"""A model whose answers are written by a function, for tests of our own logic and for teaching."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from constitutional_ai.models.model import Context, Format, Sampling, plain
from constitutional_ai.records import Completion
from constitutional_ai.seeding import seed_of


def echo(context: str) -> str:
    """Return the last line of the context."""
    return context.removesuffix("\n\nAssistant:").rsplit("\n", 1)[-1].removeprefix("Human: ")


def indifferent(context: str, continuation: str) -> float:
    """Return the same log-probability for every continuation."""
    return math.log(0.5)


SURE = 0.95
"""Probability that a scripted judge gives to the answer it prefers."""


def asks_back(context: str, continuation: str) -> float:
    """Prefer replies that contain a question. ``make planted`` checks that the pipeline learns this preference.

    Of one reply, ``asks_itself`` tells whether there is one.
    """
    if continuation in (" yes", " no"):
        return asks_itself(context, continuation)
    (mine, other) = (("?" in option) for option in _options(context, continuation))
    share = 0.5 if mine == other else SURE if mine else 1 - SURE
    return math.log(share)


def asks_itself(context: str, continuation: str) -> float:
    """Say yes to any question about the last reply if that reply contains a question."""
    before = context.removesuffix("The answer is:").rstrip().removesuffix("\n\nAssistant:")
    reply = before.rpartition("\n\nAssistant: ")[2].rpartition("\n\n")[0]
    return math.log(SURE if ("?" in reply) == (continuation == " yes") else 1 - SURE)


def fewer_words(context: str, continuation: str) -> float:
    """Prefer the reply with fewer words: RL must find this although answers tend to grow (``planted_brief.py``)."""
    mine, other = (len(option.split()) for option in _options(context, continuation))
    return math.log(0.5 if mine == other else SURE if mine < other else 1 - SURE)


def coin_flips(context: str, continuation: str) -> float:
    """Prefer a random answer of each pair, the same one in both orders, so that nothing can be learned."""
    mine, other = _options(context, continuation)
    if mine == other:
        return math.log(0.5)
    heads = seed_of("coin", *sorted((mine, other))) % 2 == 0
    return math.log(SURE if heads == (mine < other) else 1 - SURE)


def _options(context: str, continuation: str) -> tuple[str, str]:
    """Return the answer that " (A)" or " (B)" means in a question in the form of FB-4, and the other answer."""
    _, _, options = context.rpartition("\n (A) [[[")
    first, _, rest = options.partition("]]]\n (B) [[[")
    second = rest.rpartition("]]]")[0]
    return (first, second) if continuation.strip() == "(A)" else (second, first)


@dataclass(frozen=True)
class ScriptedModel:
    """A model made of two functions.

    ``say`` returns the answer to a context in plain text; ``weigh`` returns the log-probability of a continuation.

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
        prompt = context if isinstance(context, str) else plain(context)
        text = self.say(prompt)
        return Completion(text, self.name, "stop", len(prompt.split()), len(text.split()))

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        prompt = context if isinstance(context, str) else plain(context)
        return [self.weigh(prompt, continuation) for continuation in continuations]


JUDGES = {"asks-back": asks_back, "coin-flips": coin_flips, "fewer-words": fewer_words}
SCRIPTS = ("echo", *JUDGES)


def scripted(name: str) -> ScriptedModel:
    """Return the model ``scripted:<name>``, where the name is one of ``SCRIPTS``."""
    return ScriptedModel(weigh=JUDGES.get(name, indifferent), name=f"scripted:{name}")
