"""The gate tests, before any labelling, whether the feedback model can judge at all (pitfall 27).

At 12.6 billion parameters and below, the paper's multiple-choice judge is at chance (figure 4). The gate questions have
a clear right answer, so a model that is at chance on them would label at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from constitutional_ai.metrics.intervals import mean, rate
from constitutional_ai.records import Comparison, Completion, Conversation, GateAnswer, Metric, Prompt, Side
from constitutional_ai.seeding import rng

CHANCE = 0.5
QUESTIONS = Path(__file__).parents[2] / "data" / "gate.jsonl"


@dataclass(frozen=True, slots=True)
class GateQuestion:
    """A prompt with two answers, of which one is clearly better."""

    conversation: Conversation
    better: str
    worse: str
    tags: tuple[str, ...] = ()

    def comparison(self, seed: int) -> tuple[Comparison, Side]:
        """Return the two answers as a comparison, and the side of the better one, drawn by the seed."""
        prompt = Prompt.of(self.conversation, "red_team", "gate", self.tags)
        side: Side = rng(seed, "gate", prompt.id).choice(("a", "b"))
        better, worse = [
            Completion(text, "gate", "stop", 0, max(1, len(text) // 4)) for text in (self.better, self.worse)
        ]
        a, b = (better, worse) if side == "a" else (worse, better)
        return Comparison(prompt.id, prompt, a, b), side


def gate_questions() -> list[GateQuestion]:
    """Read the built-in questions."""
    parse = TypeAdapter(GateQuestion).validate_json
    return [parse(line) for line in QUESTIONS.read_bytes().splitlines()]


@dataclass(frozen=True, slots=True)
class GateResult:
    """The accuracy of a feedback model on the gate questions."""

    accuracy: Metric
    confidence: Metric
    """Mean probability of the right answer."""
    flips: Metric
    """Share of questions whose winner changes with the order; None if the method has no order, or used only one."""

    @property
    def passed(self) -> bool:
        """Whether the whole 95 % interval of the accuracy is above chance."""
        return self.accuracy.low is not None and self.accuracy.low > CHANCE

    def __str__(self) -> str:
        a, f = self.accuracy, self.flips
        if a.value is None:
            return "0 gate questions answered"
        text = f"{a.value:.2f} of {a.count} gate questions right (95 % interval {a.low:.2f} to {a.high:.2f})"
        return text + (f", {f.value:.2f} flip with the order" if f.value is not None else "")


def gate_result(model: str, answers: Sequence[GateAnswer]) -> GateResult:
    """Return the result of a feedback model. A tie counts as wrong."""
    flips = [a.label.flipped for a in answers]
    return GateResult(
        rate("gate_accuracy", model, [a.probability_right > CHANCE for a in answers]),
        mean("gate_confidence", model, [a.probability_right for a in answers]),
        rate("gate_flip_rate", model, [f for f in flips if f is not None]),
    )
