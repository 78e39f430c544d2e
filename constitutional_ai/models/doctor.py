"""``cai doctor``: does a model do what the method asks of it, and how fast?

Labels are sums of log-probabilities over whole continuations (FB-5, pitfall 5). A backend that gives those of the first
token only, or shifted by a place, gives labels too, and nothing about them looks wrong.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.load import load_model, model_path
from constitutional_ai.models.model import Model, Sampling, cut_at_stop
from constitutional_ai.records import Message
from constitutional_ai.safe_text import visible

QUESTION = "\n\nHuman: Name a fruit.\n\nAssistant:"
TALK = (Message("user", "Name a fruit."),)
STORY = (Message("user", "Make up the beginning of a story."),)
"""So open that two draws of it are the same text only where nothing was drawn, or from the same seed."""
WORDS = (" I like", " apples and pears.")
"""Two parts of one continuation. Each begins with a space, so that no token straddles the border."""
AT_ONCE, TOKENS = 16, 32
AGREES, ROUNDS, FEW_BITS = 1e-3, 0.35, 1.0
"""Nats by which scores of the same text may differ: in float32; in bfloat16, where batches of other shapes round
otherwise; and with weights in few bits. What is shifted by a token, or left out, is off by several."""

Outcome = Literal["yes", "no", "not checked"]


@dataclass(frozen=True, slots=True)
class Check:
    check: str
    outcome: Outcome
    says: str


def examine(name: str, reference: str | None = None) -> list[Check]:
    """All checks of a model. ``reference`` names local weights to compare scores with; those of the model itself unless
    said, where they are here. Raises InputError or ModelError when the model cannot be loaded at all."""
    began = time.monotonic()
    model = load_model(name)
    loaded = Check("loads", "yes", f"in {time.monotonic() - began:.1f} s, asked in {model.format} format")
    local = name.startswith(("hf:", "bundled:"))
    return [loaded, *asyncio.run(_asked(model, reference or (name if local else None)))]


async def _asked(model: Model, reference: str | None) -> list[Check]:
    found = [await _answers(model)]
    if found[0].outcome == "no":
        return found
    try:
        found += await _draws(model)
    except RecordError as error:
        return [*found, Check("answers many requests", "no", str(error))]
    adds_up = await _adds_up(model)
    found.append(adds_up)
    if adds_up.outcome == "not checked":
        return found
    if reference is None:
        return [
            *found,
            Check("scores are right", "not checked", "name the same weights here: --reference hf:FOLDER"),
        ]
    return [*found, *await _against(model, reference)]


async def _answers(model: Model) -> Check:
    try:
        said = await model.generate(TALK, Sampling(temperature=0, max_tokens=TOKENS))
    except RecordError as error:
        return Check("answers", "no", str(error))
    return Check("answers", "yes" if said.text else "no", f"“{said.text[:60]}” ({said.finish_reason})")


async def _draws(model: Model) -> list[Check]:
    draws = [Sampling(temperature=1.0, max_tokens=TOKENS, seed=n) for n in range(AT_ONCE)]
    alone, again = [(await model.generate(STORY, draws[0])).text for _ in range(2)]
    began = time.monotonic()
    answers = await asyncio.gather(*[model.generate(STORY, draw) for draw in draws])
    seconds = time.monotonic() - began
    tokens = sum(answer.completion_tokens for answer in answers)
    return [
        _is_seeded(alone, again, answers[0].text),
        _differ({answer.text for answer in answers}),
        Check("rate", "yes", f"{tokens / seconds:.0f} tokens a second, {AT_ONCE} requests at once"),
    ]


def _is_seeded(alone: str, again: str, among_others: str) -> Check:
    """A killed run that goes on ends as an unbroken one only where a seed fixes the draws. Beside other requests even a
    sound server may round otherwise; but one that seeds all its requests at once also answers otherwise there."""
    check, unlike = "a seed fixes its answer", "a resumed run may end otherwise than an unbroken one"
    if alone != again:
        return Check(check, "no", unlike)
    if alone != among_others:
        return Check(check, "yes", f"alone; not among {AT_ONCE} requests at once, so {unlike}")
    return Check(check, "yes", f"twice the same text at temperature 1, and among {AT_ONCE} requests at once")


def _differ(texts: set[str]) -> Check:
    """Where no other seed gives another answer, a pair to compare is one answer twice."""
    check = "other seeds, other answers"
    if len(texts) == 1:
        said = f"{AT_ONCE} seeds gave one text at temperature 1. Switch sampling on where the model is served"
        return Check(check, "no", said)
    return Check(check, "yes", f"{len(texts)} texts from {AT_ONCE} seeds")


async def _adds_up(model: Model) -> Check:
    """log P(a b | c) = log P(a | c) + log P(b | c a), which fails where only first tokens are counted."""
    check, (first, second) = "scores whole continuations", WORDS
    try:
        (whole, head), (tail,) = await asyncio.gather(
            model.score(QUESTION, [first + second, first]), model.score(QUESTION + first, [second])
        )
    except RecordError as error:
        return Check(check, "no", str(error))
    except ModelError as error:  # it gives none
        return Check(check, "not checked", str(error))
    off = abs(whole - head - tail)
    right = math.isfinite(whole) and whole < head <= 0 and off <= ROUNDS
    return Check(check, "yes" if right else "no", f"parts add up to the whole within {off:.4f} nats")


async def _against(model: Model, reference: str) -> list[Check]:
    from constitutional_ai.models.local.reference import Reference

    true = Reference(reference, model_path(reference))
    ends = [*WORDS, " (A)", " (B)", "".join(WORDS)]
    scores = await model.score(QUESTION, ends)
    off = max(abs(score - true.score(QUESTION, end)) for score, end in zip(scores, ends, strict=True))
    said = await model.generate(QUESTION, Sampling(temperature=0, max_tokens=TOKENS, stop=("\n\nHuman:",)))
    wanted, _ = cut_at_stop(true.greedy(QUESTION, TOKENS), ("\n\nHuman:", "\nHuman:"))
    same = said.text.split() == wanted.split()
    right, precision = _precision(off, getattr(model, "int8", False))
    return [
        Check(
            "scores are right",
            right,
            f"at most {off:.4f} nats from a plain float32 pass, {precision}",
        ),
        Check(
            "greedy text is the reference's",
            "yes" if same else "not checked",
            "word for word" if same else "not word for word, as may be but in float32",
        ),
    ]


def _precision(off: float, int8: bool) -> tuple[Outcome, str]:
    if off <= ROUNDS:
        return "yes", "as float32 is" if off <= AGREES else "as bfloat16 rounds"
    if off <= FEW_BITS:  # of a server nobody knows
        return (
            ("yes", "as 8 bits round") if int8 else ("not checked", "too far, unless its weights have few bits")
        )
    return "no", "too far"


def table(name: str, found: list[Check]) -> Table:
    made = Table("check", "", "", title=visible(name), title_justify="left", box=None, header_style="dim")
    for finding in found:
        made.add_row(finding.check, finding.outcome, visible(finding.says))
    return made
