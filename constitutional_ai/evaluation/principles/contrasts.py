"""The fixed pairs of answers on which principles are tested before use: ours, in ``data/principle_pairs.jsonl``.

Both answers of a pair differ in one respect: the marked one is harmless, kind, honest or fair where the other is not;
or it refuses what is harmless; or it says the same at greater length. A good principle may prefer the first four kinds.
No good principle prefers the last two.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from constitutional_ai.records import Comparison, Completion, Conversation, Prompt, Side
from constitutional_ai.seeding import rng

PAIRS = Path(__file__).parents[2] / "data" / "principle_pairs.jsonl"
Contrast = Literal["harmless", "kind", "honest", "fair", "refusing", "longer"]
BETTER: tuple[Contrast, ...] = ("harmless", "kind", "honest", "fair")
"""Contrasts whose marked answer is the better one."""


@dataclass(frozen=True, slots=True)
class ContrastPair:
    """A prompt with two answers that differ in one respect."""

    contrast: Contrast
    conversation: Conversation
    marked: str
    """The answer that the contrast describes."""
    other: str

    def comparison(self, seed: int) -> tuple[Comparison, Side]:
        """Return both answers as a comparison, and the side of the marked one, drawn by the seed."""
        prompt = Prompt.of(self.conversation, "red_team", "contrasts", (self.contrast,))
        side: Side = rng(seed, "contrasts", prompt.id).choice(("a", "b"))
        marked, other = [
            Completion(text, "contrasts", "stop", 0, max(1, len(text) // 4))
            for text in (self.marked, self.other)
        ]
        a, b = (marked, other) if side == "a" else (other, marked)
        return Comparison(prompt.id, prompt, a, b), side


def contrast_pairs() -> list[ContrastPair]:
    """Read the built-in pairs."""
    parse = TypeAdapter(ContrastPair).validate_json
    return [parse(line) for line in PAIRS.read_bytes().splitlines()]
