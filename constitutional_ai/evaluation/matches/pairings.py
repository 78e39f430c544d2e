"""Who plays whom on which prompt (EV-8).

Every two models on every prompt would be quadratic: the paper's 24 snapshots make 276 pairs. Ratings need no more than
that chains of matches connect all models, so a prompt is played by a bounded number of pairs. These are taken in turn
from a round robin of all models, which begins anew when it ends: any two pairs of models meet equally often, give or
take one, and as many pairs as there are models already connect them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from constitutional_ai.records import Prompt
from constitutional_ai.seeding import rng, seed_of

PER_PROMPT = 10
"""Pairs on one prompt: all pairs of up to five models."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two models, by their labels, on one prompt."""

    prompt: Prompt
    a: str
    b: str

    @property
    def id(self) -> str:
        return f"{self.prompt.id}.{self.a}.{self.b}"


def pairings(
    prompts: Iterable[Prompt], models: Sequence[str], *, seed: int, per_prompt: int = PER_PROMPT
) -> list[Pairing]:
    """Each prompt with ``per_prompt`` different pairs of models, or with all where there are fewer.

    A prompt is given more than ``per_prompt`` only where else there would be fewer matches than models. Which models
    meet on which prompt is drawn by ``seed``; the order of either changes nothing.
    """
    ordered = sorted({p.id: p for p in prompts}.values(), key=lambda p: seed_of(seed, "pairings", p.id))
    players = sorted(models)
    rng(seed, "pairings").shuffle(players)
    every = list(_round_robin(players))
    if not (ordered and every):
        return []
    count = min(len(every), max(per_prompt, math.ceil(len(players) / len(ordered))))
    turns = cycle(every)
    return [Pairing(prompt, *pair) for prompt in ordered for pair in islice(turns, count)]


def _round_robin(players: Sequence[str]) -> Iterator[tuple[str, str]]:
    """All pairs in rounds, by the circle method: nobody plays twice in a round, and two rounds on end connect all."""
    ring = [*players, None] if len(players) % 2 else list(players)
    for _ in range(len(ring) - 1):
        for one, other in zip(ring[: len(ring) // 2], reversed(ring), strict=False):
            if one is not None and other is not None:
                yield one, other
        ring = [ring[0], ring[-1], *ring[1:-1]]
