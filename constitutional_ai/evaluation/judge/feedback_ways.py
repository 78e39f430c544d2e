"""Find out in which ways a server tells which answer is better, and how far these ways agree (``cai doctor``).

The same few gate questions, whose right answer is clear, are asked in every way. They show which way works and which do
not fit each other. They are too few to tell which judges best: ``cai judge`` measures that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.doctor import CHECK_SECONDS, Check
from constitutional_ai.models.load import LOCAL_SCHEMES, load_model
from constitutional_ai.models.model import Model
from constitutional_ai.records import Comparison, GateAnswer, PreferenceLabel, Side
from constitutional_ai.rl_cai.feedback.gate import CHANCE, gate_questions
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback

QUESTIONS = 8
VOTES = 4
WAYS: Mapping[str, Feedback] = {
    "scores by echo": Feedback(method="multiple_choice", format="plain"),
    "letters by top_logprobs": Feedback(method="multiple_choice", format="chat"),
    "decisions": Feedback(method="decision"),
    "votes": Feedback(method="votes", format="chat", votes=VOTES),
}
"""The nearer to the paper, the earlier: its own question and probabilities, then those of a chat, then another
question, then counted letters."""
SETTINGS = {
    "scores by echo": "feedback.method=multiple_choice feedback.format=plain",
    "letters by top_logprobs": "feedback.method=multiple_choice feedback.format=chat",
    "decisions": "feedback.method=decision feedback.format=auto",
    "votes": "feedback.method=votes feedback.format=auto",
}
READABLE_SHARE = 0.5
"""Share of the questions that must get a label in a way that works."""


@dataclass(frozen=True, slots=True)
class WayResult:
    """The answers to the questions that were asked in one way."""

    way: str
    answers: Mapping[str, GateAnswer]
    """The answers, by the id of the question."""
    fault: str | None
    """Why there is no answer, or not to every question."""
    is_late: bool = False
    """Whether time ran out before the last question."""

    @property
    def works(self) -> bool:
        """Whether enough questions got a label."""
        return len(self.answers) >= READABLE_SHARE * QUESTIONS


def examine_ways(name: str, say: Callable[[str], None] = lambda doing: None) -> list[Check]:
    """Return a check for each way, and what to set; nothing for a model in this process, which scores anyway.

    ``say`` receives the way that is being checked.
    """
    if name.startswith((*LOCAL_SCHEMES, "scripted:")):
        return []
    return checks_of(asyncio.run(ask_in_every_way(load_model(name), say, CHECK_SECONDS)))


async def ask_in_every_way(
    model: Model, say: Callable[[str], None] = lambda doing: None, seconds: float | None = None, seed: int = 0
) -> list[WayResult]:
    """Ask the questions in each way, in the order of ``WAYS``, and in both orders of the answers.

    ``seconds`` is the time for each way; None if there is no limit.
    """
    every = gate_questions()
    chosen = [question.comparison(seed) for question in every[:: len(every) // QUESTIONS][:QUESTIONS]]
    labelled = partial(label, model=model, constitution=load_constitution("default"), seed=seed)
    results = []
    for way, settings in WAYS.items():
        say(f"asks {QUESTIONS} questions in both orders: {way}")
        results.append(await _ask(way, chosen, partial(labelled, settings=settings), seconds))
    return results


async def _ask(
    way: str,
    chosen: Sequence[tuple[Comparison, Side]],
    labelled: Callable[[Comparison], Awaitable[PreferenceLabel]],
    seconds: float | None,
) -> WayResult:
    """Ask one question after another, so that a slow server has answered some of them when time runs out."""
    answers: dict[str, GateAnswer] = {}
    fault = None
    try:
        async with asyncio.timeout(seconds):
            for comparison, better in chosen:
                try:
                    answers[comparison.id] = GateAnswer(comparison.id, await labelled(comparison), better)
                except RecordError as error:
                    fault = fault or str(error)
    except ModelError as error:  # the other questions would fail alike
        fault = fault or str(error)
    except TimeoutError:
        late = f"only {len(answers)} of {QUESTIONS} within {seconds:.0f} s: the server is slow or busy"
        return WayResult(way, answers, f"{fault}; {late}" if fault else late, is_late=True)
    return WayResult(way, answers, fault)


def checks_of(results: Sequence[WayResult]) -> list[Check]:
    """Return a check for each way, compared with the first that works, and a last one that says what to set."""
    working = [result for result in results if result.works]
    checks = [
        Check(result.way, "yes", _details(result, working[0]))
        if result.works
        else Check(result.way, "not checked" if result.is_late else "no", result.fault or "")
        for result in results
    ]
    if not working:
        late = any(result.is_late for result in results)
        why = "no way was answered in time" if late else "this model cannot compare answers in any way"
        return [*checks, Check("feedback", "no", why)]
    first = working[0]
    advice = f"set {SETTINGS[first.way]}, and audit it by cai judge"
    if _right(first) <= CHANCE * len(first.answers):
        advice += "; here it is no better than chance, so a larger model may be needed"
    return [*checks, Check("feedback", "yes", advice)]


def _right(result: WayResult) -> int:
    return sum(answer.probability_right > CHANCE for answer in result.answers.values())


def _details(result: WayResult, first: WayResult) -> str:
    answers = list(result.answers.values())
    flips = sum(answer.label.flipped is True for answer in answers)
    masses = [j.label_mass for a in answers for j in a.label.judgements if j.label_mass is not None]
    parts = [f"{_right(result)} of {len(answers)} right", f"{flips} flip with the order"]
    parts += [f"the options hold {fmean(masses):.2f} of the probability"] if masses else []
    parts += [_agreement(result, first)] if result is not first else []
    parts += [f"{QUESTIONS - len(answers)} without a label: {result.fault}"] if result.fault else []
    return "; ".join(parts)


def _agreement(result: WayResult, other: WayResult) -> str:
    """Return how far two ways agree on the questions that got a label in both."""
    pairs = [
        (answer.label.probability_a, other.answers[name].label.probability_a)
        for name, answer in result.answers.items()
        if name in other.answers
    ]
    same = sum((p > CHANCE) == (q > CHANCE) for p, q in pairs)
    apart = fmean(abs(p - q) for p, q in pairs) if pairs else 0.0
    return f"same winner as {other.way} in {same} of {len(pairs)}, P {apart:.2f} apart"
