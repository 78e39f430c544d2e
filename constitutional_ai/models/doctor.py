"""Check that a model does what the method needs, and measure its speed (``cai doctor``).

Labels are sums of log-probabilities over whole continuations (FB-5, pitfall 5). A backend that returns only that of
the first token, or is off by one token, still gives labels that look plausible.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.doctor_thinking import describe_thinking
from constitutional_ai.models.load import LOCAL_SCHEMES, load_model, model_path
from constitutional_ai.models.model import STOP_STRINGS, Model, Sampling, cut_at_stop
from constitutional_ai.records import Message
from constitutional_ai.safe_text import visible

QUESTION = "\n\nHuman: Name a fruit.\n\nAssistant:"
CONVERSATION = (Message("user", "Name a fruit."),)
OPEN_QUESTION = (Message("user", "Make up the beginning of a story."),)
"""A question so open that two samples agree only if decoding is greedy or the seeds are the same."""
PARTS = (" I like", " apples and pears.")
"""Two parts of one continuation. Each starts with a space, so that no token spans both."""
REQUESTS, TOKENS = 16, 32
CHECK_SECONDS = 300.0
"""Time that a server has for one check: a CPU that emulates bfloat16 writes one token in several seconds."""
FLOAT32, BFLOAT16, QUANTISED = 1e-3, 0.35, 1.0
"""Allowed difference, in nats, between two scores of one text: in float32, in bfloat16 (where rounding depends on the
batch's shape) and with quantised weights. Scores that are shifted by a token, or lack one, are off by several nats."""

Outcome = Literal["yes", "no", "not checked"]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    outcome: Outcome
    details: str


def examine(
    name: str, reference: str | None = None, say: Callable[[str], None] = lambda doing: None
) -> list[Check]:
    """Run all checks on a model. ``say`` receives what is being checked.

    ``reference`` names local weights to compare scores with; the default is the model itself if it is local.
    Raises InputError or ModelError when the model cannot be loaded.
    """
    started = time.monotonic()
    model = load_model(name)
    load = Check(
        "loads", "yes", f"in {time.monotonic() - started:.1f} s; takes prompts in {model.format} format"
    )
    is_local = name.startswith(LOCAL_SCHEMES)
    examiner = _Examiner(model, say, None if is_local else CHECK_SECONDS)
    checks = asyncio.run(examiner.examine(reference or (name if is_local else None)))
    return [load, *_paths(model), *checks]


def _paths(model: Model) -> list[Check]:
    """Return which code computes attention and matrix products, if the model's engine reports it."""
    if not hasattr(model, "paths"):
        return []
    paths: dict[str, str] = model.paths()
    return [Check("computes with", "yes", "; ".join(f"{part}: {code}" for part, code in paths.items()))]


@dataclass(frozen=True, slots=True)
class _Examiner:
    """The checks of one model, each of which says what it does and ends in time."""

    model: Model
    say: Callable[[str], None]
    seconds: float | None
    """Time for each check; None if there is no limit."""

    async def examine(self, reference: str | None) -> list[Check]:
        model = self.model
        answers = await self._run("answers", "asks one question", _check_answer(model), late="no")
        if answers[0].outcome == "no":
            return answers
        try:
            doing = f"asks one question {REQUESTS + 2} times, {REQUESTS} of them at once"
            samples = await self._run("answers many requests", doing, _check_sampling(model))
        except RecordError as error:
            return [*answers, Check("answers many requests", "no", str(error))]
        scores = await self._run("scores whole continuations", "asks for scores", _check_scores(model))
        thinking = await self._run("thinking", "asks with thinking off and on", _check_thinking(model))
        checks = [*answers, *samples, *thinking, *scores]
        if scores[0].outcome == "not checked":
            return checks
        if reference is None:
            hint = "name the same weights on this machine: --reference hf:FOLDER"
            return [*checks, Check("scores are right", "not checked", hint)]
        doing = "compares scores and text with a plain float32 pass"
        return [*checks, *await self._run("scores are right", doing, _compare(model, reference))]

    async def _run(
        self, name: str, doing: str, checks: Awaitable[list[Check]], late: Outcome = "not checked"
    ) -> list[Check]:
        """Return the results of some checks, or one with the outcome ``late`` if time runs out."""
        self.say(doing)
        try:
            async with asyncio.timeout(self.seconds):
                return await checks
        except TimeoutError:
            return [Check(name, late, f"no answer within {self.seconds:.0f} s: the server is slow or busy")]


async def _check_answer(model: Model) -> list[Check]:
    try:
        answer = await model.generate(CONVERSATION, Sampling(temperature=0, max_tokens=TOKENS))
    except RecordError as error:
        return [Check("answers", "no", str(error))]
    return [Check("answers", "yes" if answer.text else "no", f"“{answer.text[:60]}” ({answer.finish_reason})")]


async def _check_thinking(model: Model) -> list[Check]:
    return [Check("thinking", "yes", await describe_thinking(model))]


async def _check_sampling(model: Model) -> list[Check]:
    samplings = [Sampling(temperature=1.0, max_tokens=TOKENS, seed=n) for n in range(REQUESTS)]
    alone, again = [(await model.generate(OPEN_QUESTION, samplings[0])).text for _ in range(2)]
    started = time.monotonic()
    answers = await asyncio.gather(*[model.generate(OPEN_QUESTION, sampling) for sampling in samplings])
    seconds = time.monotonic() - started
    tokens = sum(answer.completion_tokens for answer in answers)
    return [
        _check_seed(alone, again, answers[0].text),
        _check_seeds({answer.text for answer in answers}),
        Check("rate", "yes", f"{tokens / seconds:.0f} tokens a second with {REQUESTS} requests at once"),
    ]


def _check_seed(alone: str, again: str, among_others: str) -> Check:
    """Check that a seed fixes a completion, without which a resumed run may give other records.

    If only the answer in a batch differs, a correct server may have rounded differently there, or the server may use
    one seed for the whole batch.
    """
    check, effect = "a seed fixes the answer", "a resumed run may differ from an uninterrupted one"
    if alone != again:
        return Check(check, "no", f"two answers to one request differ: {effect}")
    if alone != among_others:
        return Check(check, "yes", f"alone, but not among {REQUESTS} requests at once: {effect}")
    return Check(check, "yes", f"same text twice at temperature 1, and among {REQUESTS} requests at once")


def _check_seeds(texts: set[str]) -> Check:
    """Check that seeds give different completions; otherwise the two answers of a comparison would be the same."""
    check = "different seeds give different answers"
    if len(texts) == 1:
        return Check(
            check, "no", f"{REQUESTS} seeds gave one text at temperature 1. Enable sampling in the server"
        )
    return Check(check, "yes", f"{len(texts)} texts from {REQUESTS} seeds")


async def _check_scores(model: Model) -> list[Check]:
    """Check that log P(a b | c) = log P(a | c) + log P(b | c a), which fails if only first tokens are counted."""
    check, (first, second) = "scores whole continuations", PARTS
    try:
        (whole, head), (tail,) = await asyncio.gather(
            model.score(QUESTION, [first + second, first]), model.score(QUESTION + first, [second])
        )
    except RecordError as error:
        return [Check(check, "no", str(error))]
    except ModelError as error:  # the model gives no scores
        return [Check(check, "not checked", str(error))]
    off = abs(whole - head - tail)
    right = math.isfinite(whole) and whole < head <= 0 and off <= BFLOAT16
    return [Check(check, "yes" if right else "no", f"the parts add up to the whole within {off:.4f} nats")]


async def _compare(model: Model, reference: str) -> list[Check]:
    """Compare scores and greedy text with a plain float32 forward pass of the reference."""
    from constitutional_ai.models.local.reference import Reference

    exact = Reference(reference, model_path(reference))
    ends = [*PARTS, " (A)", " (B)", "".join(PARTS)]
    scores = await model.score(QUESTION, ends)
    off = max(abs(score - exact.score(QUESTION, end)) for score, end in zip(scores, ends, strict=True))
    outcome, precision = _precision(off, getattr(model, "int8", False))
    answer = await model.generate(QUESTION, Sampling(temperature=0, max_tokens=TOKENS, stop=STOP_STRINGS[:1]))
    expected, _ = cut_at_stop(exact.greedy(QUESTION, TOKENS), STOP_STRINGS[:2])
    same = answer.text.split() == expected.split()
    return [
        Check("scores are right", outcome, f"at most {off:.4f} nats from a plain float32 pass: {precision}"),
        Check(
            "greedy text is the reference's",
            "yes" if same else "not checked",
            "same words" if same else "texts differ (expected below float32)",
        ),
    ]


def _precision(off: float, int8: bool) -> tuple[Outcome, str]:
    if off <= FLOAT32:
        return "yes", "float32 precision"
    if off <= BFLOAT16:
        return "yes", "bfloat16 precision"
    if off <= QUANTISED and int8:
        return "yes", "8-bit precision"
    if off <= QUANTISED:  # a server does not say whether its weights are quantised
        return "not checked", "too far off, unless the server quantises its weights"
    return "no", "too far off"


def table(name: str, checks: list[Check]) -> Table:
    """Return the checks of a model as a table."""
    rows = Table("check", "", "", title=visible(name), title_justify="left", box=None, header_style="dim")
    for check in checks:
        rows.add_row(check.name, check.outcome, visible(check.details))
    return rows
