"""Choose the pairs of models that play on each prompt (EV-8).

To play all pairs on every prompt would be quadratic: the paper's 24 snapshots make 276 pairs. Ratings only need chains
of matches that connect all models, so a bounded number of pairs plays on each prompt. The pairs come in turn from a
repeated round robin of all models. So the numbers of matches of any two pairs differ by at most one, and as many pairs
as there are models already connect them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from constitutional_ai.records import Prompt
from constitutional_ai.seeding import rng, seed_of

PER_PROMPT = 10
"""Number of pairs on one prompt: enough for all pairs of five models."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two models, by label, on one prompt."""

    prompt: Prompt
    a: str
    b: str

    @property
    def id(self) -> str:
        return f"{self.prompt.id}.{self.a}.{self.b}"


def pairings(
    prompts: Iterable[Prompt], models: Sequence[str], *, seed: int, per_prompt: int = PER_PROMPT
) -> list[Pairing]:
    """Pair each prompt with ``per_prompt`` different pairs of models, or with all pairs if there are fewer.

    A prompt gets more than ``per_prompt`` only if there would otherwise be fewer matches than models. ``seed`` draws
    which models meet on which prompt; the order of prompts and models has no effect.
    """
    ordered = sorted({p.id: p for p in prompts}.values(), key=lambda p: seed_of(seed, "pairings", p.id))
    players = sorted(models)
    rng(seed, "pairings").shuffle(players)
    pairs = list(_round_robin(players))
    if not (ordered and pairs):
        return []
    count = min(len(pairs), max(per_prompt, math.ceil(len(players) / len(ordered))))
    turns = cycle(pairs)
    return [Pairing(prompt, *pair) for prompt in ordered for pair in islice(turns, count)]


def _round_robin(players: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield all pairs in rounds, by the circle method.

    No player plays twice in a round, and any two consecutive rounds connect all players.
    """
    ring = [*players, None] if len(players) % 2 else list(players)
    for _ in range(len(ring) - 1):
        for one, other in zip(ring[: len(ring) // 2], reversed(ring), strict=False):
            if one is not None and other is not None:
                yield one, other
        ring = [ring[0], ring[-1], *ring[1:-1]]
