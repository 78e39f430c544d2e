"""Sum up the cost of a run: time and tokens of each stage, and its share of the total.

Stages record no prices, so there are no amounts of money. An interrupted stage has the time of its last session only.
"""

from __future__ import annotations

from typing import NamedTuple

from constitutional_ai.report.contents import Contents
from constitutional_ai.runs import layout


class Cost(NamedTuple):
    """Time and tokens of a stage."""

    name: str
    seconds: float
    read: int
    written: int
    share: float | None
    """Share of the total time, in [0, 1]; None if the total is 0."""

    @property
    def speed(self) -> float | None:
        """Tokens read and written per second; None if none were counted, as in trainings."""
        tokens = self.read + self.written
        return tokens / self.seconds if tokens and self.seconds > 0 else None


def costs(contents: Contents) -> list[Cost]:
    """Return the cost of every complete stage, of every part of ``cai evaluate``, and of all together."""
    stages = [stage.manifest for stage in contents.stages if stage.manifest]
    named = [(m.stage, m) for m in stages] + [(f"{layout.SUITE}/{m.stage}", m) for m in contents.parts]
    total = sum(m.seconds for _, m in named)
    rows = [*[(name, [manifest]) for name, manifest in named], ("all", [manifest for _, manifest in named])]
    costs = []
    for name, own in rows if named else ():
        seconds, read = sum(m.seconds for m in own), sum(m.prompt_tokens for m in own)
        written = sum(m.completion_tokens for m in own)
        costs.append(Cost(name, seconds, read, written, seconds / total if total > 0 else None))
    return costs
