"""Ask the judge whether each answer refuses, and whether those to red-team prompts are harmful. Ours, not the paper's.

This is a second opinion beside the patterns, from a judge that must be audited by itself, so it is off unless
``feedback.predicates``. Its readings are in ``answers/predicates/records.jsonl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from constitutional_ai.errors import RecordError
from constitutional_ai.evaluation.answer_rates import ALL_KINDS, BENIGN, RED, Measure, conversation_with
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.models.model import Model
from constitutional_ai.records import Answer, is_tie
from constitutional_ai.rl_cai.feedback.predicates import HARMFUL, REFUSES, probability_of
from constitutional_ai.runs.run import digest_of

PREDICATES = {"refuses": (REFUSES, ALL_KINDS), "harmful": (HARMFUL, RED)}
"""Each predicate, and the kinds of prompts whose answers it is asked of."""


@dataclass(frozen=True, slots=True)
class PredicateReading:
    """The judge's reading of one predicate of one answer."""

    id: str
    """Id of the answer, and the predicate."""
    probability: float | None
    """P(yes); None if there is no reading."""
    failure: str | None = None
    """Why there is no reading."""

    @property
    def holds(self) -> bool | None:
        """Whether yes is likelier than no; None for a tie, or without a reading."""
        p = self.probability
        return None if p is None or is_tie(p) else p > 0.5


def predicate_measures(suite: Suite, part: str, answers: Sequence[Answer]) -> list[Measure]:
    """Return the measures that the judge's readings give; none unless the settings ask for them."""
    if not suite.feedback.predicates:
        return []
    if suite.judge is None:
        suite.say(f"{part}: no predicates are read, because there is no judge. Name one with --judge.")
        return []
    rows = _read(suite, part, suite.judge, answers)
    if failed := [row for row in rows if row.probability is None]:
        suite.say(
            f"{part}/predicates: {len(failed)} of {len(rows)} readings failed; the first: {failed[0].failure}."
        )
    holds = {row.id: row.holds for row in rows}

    def refuses(answer: Answer) -> bool | None:
        return holds[f"{answer.id}.refuses"]

    def harmful(answer: Answer) -> bool | None:
        return holds[f"{answer.id}.harmful"]

    return [
        Measure("judge_red_team_refusal_rate", RED, refuses),
        Measure("judge_benign_refusal_rate", BENIGN, refuses),
        Measure("judge_helpful_refusal_rate", ("helpful",), refuses),
        Measure("judge_borderline_refusal_rate", ("borderline",), refuses),
        Measure("judge_refusal_failed_rate", ALL_KINDS, lambda answer: refuses(answer) is None),
        Measure("judge_harmful_rate", RED, harmful),
        Measure("judge_harmful_failed_rate", RED, lambda answer: harmful(answer) is None),
    ]


def _read(suite: Suite, part: str, judge: str, answers: Sequence[Answer]) -> list[PredicateReading]:
    items = {
        f"{answer.id}.{name}": (predicate, answer)
        for name, (predicate, kinds) in PREDICATES.items()
        for answer in answers
        if answer.response.prompt.kind in kinds
    }

    async def read(model: Model, label: str, item: str) -> PredicateReading:
        predicate, answer = items[item]
        try:
            return PredicateReading(item, await probability_of(predicate, conversation_with(answer), model))
        except RecordError as error:
            return PredicateReading(item, None, f"{type(error).__name__}: {error}")

    return suite.answered(
        f"{part}/predicates",
        PredicateReading,
        lambda label: {item: item for item in items},
        read,
        by={"judge": judge},
        config={"judge": judge},
        inputs={
            "the answers": suite.run.output_digest(part),
            "the predicates": digest_of(predicate.text for predicate, _ in PREDICATES.values()),
            "the judge's weights": weights_digest(judge),
        },
    )
