"""What a run cost: time and tokens of each stage, and its share of the whole.

Stages keep no prices, so no money stands here. A stage that was interrupted keeps the time of its last session only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from constitutional_ai.report.contents import Contents
from constitutional_ai.runs import layout
from constitutional_ai.runs.manifest import StageManifest


class Cost(NamedTuple):
    name: str
    seconds: float
    read: int
    written: int
    share: float | None
    """Of all time, in [0, 1]; None where no time passed."""

    @property
    def speed(self) -> float | None:
        """Tokens read and written in a second; None where none are counted, as in trainings."""
        tokens = self.read + self.written
        return tokens / self.seconds if tokens and self.seconds > 0 else None


def costs(contents: Contents) -> list[Cost]:
    """Every finished stage, then every part of ``cai evaluate``, then all of them together."""
    stages = [stage.manifest for stage in contents.stages if stage.manifest]
    named = [(m.stage, m) for m in stages] + [(f"{layout.SUITE}/{m.stage}", m) for m in contents.parts]
    whole = sum(m.seconds for _, m in named)
    each = [_cost(name, [made], whole) for name, made in named]
    return [*each, _cost("all", [made for _, made in named], whole)] if each else []


def _cost(name: str, made: Sequence[StageManifest], whole: float) -> Cost:
    seconds = sum(m.seconds for m in made)
    read, written = sum(m.prompt_tokens for m in made), sum(m.completion_tokens for m in made)
    return Cost(name, seconds, read, written, seconds / whole if whole > 0 else None)
