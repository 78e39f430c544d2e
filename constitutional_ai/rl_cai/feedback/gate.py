"""The gate tests, before any labelling, whether the feedback model can judge at all (pitfall 27).

At 12.6 billion parameters and below, the paper's multiple-choice judge is at chance (figure 4). The gate questions have
a clear right answer, so a model that is at chance on them would label at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from constitutional_ai.metrics.intervals import SHARE, decided, mean, rate, ties
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


Verdict = Literal["better", "worse", "unclear", "undecided"]
"""How an accuracy compares with chance; ``undecided`` if all answers are ties."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """The accuracy of a feedback model on the gate questions."""

    accuracy: Metric
    """Share of right answers among the decided ones."""
    ties: Metric
    """Share of answers that prefer neither side, which are neither right nor wrong."""
    confidence: Metric
    """Mean probability of the right answer."""
    flips: Metric
    """Share of questions whose winner changes with the order; None if the method has no order, or used only one."""

    @property
    def tied(self) -> int:
        """Number of ties."""
        return self.ties.count - self.accuracy.count

    @property
    def passed(self) -> bool:
        """Whether the whole 95 % interval of the accuracy is above chance."""
        return self.verdict == "better"

    @property
    def verdict(self) -> Verdict:
        """How the whole 95 % interval of the accuracy compares with chance."""
        low, high = self.accuracy.low, self.accuracy.high
        if low is None or high is None:
            return "undecided" if self.ties.count else "unclear"
        return "better" if low > CHANCE else "worse" if high < CHANCE else "unclear"

    def __str__(self) -> str:
        a, f, answered = self.accuracy, self.flips, self.ties.count
        if not answered:
            return "0 gate questions answered"
        if a.value is None:
            return f"no gate question right or wrong: all {answered} are ties"
        questions = "decided gate questions" if self.tied else "gate questions"
        text = f"{a.value:.2f} of {a.count} {questions} right (95 % interval {a.low:.2f} to {a.high:.2f})"
        text += f", {self.tied} of {answered} are ties" if self.tied else ""
        return text + (f", {f.value:.2f} flip with the order" if f.value is not None else "")


def gate_result(model: str, answers: Sequence[GateAnswer]) -> GateResult:
    """Return the result of a feedback model. A tie is neither right nor wrong, and is counted beside."""
    right = [a.right for a in answers]
    return GateResult(
        rate("gate_accuracy", model, decided(right)),
        ties("gate_ties", model, right),
        mean("gate_confidence", model, [a.probability_right for a in answers], within=SHARE),
        rate("gate_flip_rate", model, decided(a.label.flipped for a in answers)),
    )
