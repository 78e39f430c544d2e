"""Define a feedback method: how a feedback model is asked about two answers, and how its reply is read.

Each method is a module of this package and an entry of ``METHODS`` in ``label.py``.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.models.abilities import Reading
from constitutional_ai.models.model import Model
from constitutional_ai.records import Comparison, Judgement, Side, Usage
from constitutional_ai.rl_cai.feedback.settings import Feedback, MethodName
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots


@dataclass(frozen=True, slots=True)
class FeedbackQuestion:
    """One question about a comparison, under one principle and in one order."""

    principle: Principle
    first: Side
    """The side of the comparison whose answer is shown first, as (A)."""
    shown: Comparison
    """The comparison, swapped if necessary so that its answer a is shown first."""
    few_shots: str
    """Worked examples before the question; all questions of a comparison share them."""
    seed: int
    unrevised: str = ""
    """Worked examples of the answers that ``few_shots`` revise, for ``Likelihood``."""

    def judged(
        self,
        probability_first: float,
        reasoning: str | None = None,
        cost: Usage | None = None,
        thought: str | None = None,
    ) -> Judgement:
        """Return the judgement with this probability that the answer shown first is better."""
        read, written = cost or (None, None)
        return Judgement(self.principle.name, self.first, probability_first, reasoning, read, written, thought)

    def read(self, reading: Reading) -> Judgement:
        """Return the judgement of a reading whose first option is the answer shown first."""
        judgement = self.judged(reading.probabilities[0], cost=reading.usage)
        return replace(judgement, label_mass=reading.label_mass, raw=reading.raw)


class FeedbackMethod(ABC):
    """A way to ask a feedback model which of two answers is better."""

    name: ClassVar[MethodName]
    has_order: ClassVar[bool] = True
    """Whether a question shows both answers, so that the first one may have an advantage (FB-8)."""
    needs_scores: ClassVar[bool] = True
    """Whether the model must give log-probabilities."""
    reads_letters: ClassVar[bool] = False
    """Whether a chat server may tell those of the letters it says instead (``ReadsLetters``)."""
    samples_text: ClassVar[bool] = False
    """Whether the model writes text, which costs tokens and may be a refusal."""
    needs_assistants: ClassVar[bool] = False
    """Whether a principle must describe two assistants, ``upheld`` and ``broken``."""

    def principles(self, constitution: Constitution) -> tuple[Principle, ...]:
        """Return the principles of a constitution that the method can use."""
        return constitution.for_likelihood if self.needs_assistants else constitution.for_preference

    def worked_examples(
        self, few_shots: FewShots, principles: Sequence[Principle], draws: random.Random
    ) -> str:
        """Return worked examples to write before a question in the plain format; "" if the method has none."""
        return few_shots.multiple_choice(principles, draws)

    def unrevised(self, few_shots: FewShots) -> str:
        """Return the same examples with their worse answers; "" for all methods but ``Likelihood``."""
        return ""

    def repeats(self, settings: Feedback) -> int:
        """Return how often each question is asked."""
        return 1

    def calls(self, settings: Feedback) -> int:
        """Return the number of model calls that one judgement takes."""
        return 1

    @abstractmethod
    async def judge(self, question: FeedbackQuestion, model: Model, settings: Feedback) -> Judgement:
        """Ask one question. Raises RecordError if the model's reply gives no probability."""

    def soft_label(self, mean: float, settings: Feedback) -> float:
        """Return the label of a comparison, in [0, 1], from the mean over its questions."""
        return mean
