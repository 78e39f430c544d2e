"""Draft principles for the clauses of a document with a model, and ask a judge whether they are faithful to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from constitutional_ai.constitutions.clauses import Clause, read_clauses
from constitutional_ai.constitutions.constitution import SIDES, Principle
from constitutional_ai.constitutions.drafts import (
    candidate,
    candidate_of,
    drafts_file,
    request,
    request_for,
    sifted,
    stub,
    text_in,
)
from constitutional_ai.errors import RecordError
from constitutional_ai.models.abilities import ReadsLetters
from constitutional_ai.models.load import loaded
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback.decision import readable
from constitutional_ai.rl_cai.feedback.multiple_choice import softmax_first
from constitutional_ai.seeding import seed_of

AT_ONCE = 64
"""Maximum number of candidates that are in the making at the same time."""
MAX_TOKENS, SIDE_TOKENS = 300, 80
"""Tokens of all sides of a candidate, and of one side alone."""
FAITHFUL = """\
A clause of a document about an AI assistant, and an instruction that was written from it.

Clause: {clause}

Instruction: {instruction}

Does the instruction ask for something that the clause asks for, and for nothing that the clause does not want?
 (A) {first}
 (B) {second}"""
ANSWER = "The answer is:"
LETTERS = (" (A)", " (B)")


class Drafted(NamedTuple):
    """The text of a file of drafts, and what became of all candidates."""

    text: str
    clauses: int
    without: int
    """Clauses of which no candidate was kept."""
    counts: Counter[str]


def draft_document(
    document: Path, *, model: str | None, judge: str | None, candidates: int, seed: int
) -> Drafted:
    """Return the drafts for all clauses of a document; empty ones if there is no ``model`` to write them.

    Raises InputError or ModelError for a document or model that cannot be used. A clause that the model does not answer
    has no candidate, and an empty draft stands in its place.
    """
    clauses = read_clauses(document)
    counts: Counter[str] = Counter()
    kept: list[list[Principle]] = [[] for _ in clauses]
    if model is not None:
        kept, counts = asyncio.run(_all(clauses, document.name, model, judge, candidates, seed))
    without = sum(not drafts for drafts in kept)
    drafts = [
        of_clause or [stub(clause, document.name)] for clause, of_clause in zip(clauses, kept, strict=True)
    ]
    return Drafted(drafts_file(document.name, clauses, drafts), len(clauses), without, counts)


async def _all(
    clauses: Sequence[Clause], document: str, model: str, judge: str | None, candidates: int, seed: int
) -> tuple[list[list[Principle]], Counter[str]]:
    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("drafting", total=len(clauses) * candidates)
        with loaded(model) as writer:
            written = await write_all(clauses, document, writer, candidates, seed, lambda: bars.advance(bar))
        kept, counts = sifted(written)
        if judge is None:
            return kept, counts
        bar = bars.add_task("judging", total=counts["kept"])
        with _same(writer) if judge == model else loaded(judge) as reader:
            return await keep_faithful(clauses, kept, counts, reader, lambda: bars.advance(bar))


def _same(model: Model) -> AbstractContextManager[Model]:
    return nullcontext(model)


async def write_all(
    clauses: Sequence[Clause],
    document: str,
    model: Model,
    candidates: int,
    seed: int,
    on_written: Callable[[], None] = lambda: None,
) -> list[list[Principle | None]]:
    """Return the candidates of each clause, each sampled with its own seed; None for one that cannot be read.

    A model that does not keep the form of all sides is asked again, for each side alone.
    """
    free = asyncio.Semaphore(AT_ONCE)

    async def one(clause: Clause, number: int) -> Principle | None:
        own_seed = seed_of(seed, "draft principle", clause.label, number)
        try:
            async with free:
                reply = await model.generate(
                    (Message("user", request(clause)),), Sampling(max_tokens=MAX_TOKENS, seed=own_seed)
                )
                whole = candidate(clause, document, number, reply.text)
                return whole or candidate_of(
                    clause, document, number, await _each_side(clause, model, own_seed)
                )
        except RecordError:
            return None
        finally:
            on_written()

    rows = [asyncio.gather(*[one(clause, n) for n in range(1, candidates + 1)]) for clause in clauses]
    return [list(row) for row in await asyncio.gather(*rows)]


async def _each_side(clause: Clause, model: Model, seed: int) -> dict[str, str]:
    """Ask for each side of a principle alone, as small models keep no form of five lines."""
    replies = await asyncio.gather(
        *[
            model.generate(
                request_for(side, clause), Sampling(max_tokens=SIDE_TOKENS, seed=seed_of(seed, side))
            )
            for side in SIDES
        ]
    )
    return {side: text_in(reply.text) for side, reply in zip(SIDES, replies, strict=True)}


async def keep_faithful(
    clauses: Sequence[Clause],
    kept: Sequence[Sequence[Principle]],
    counts: Counter[str],
    judge: Model,
    on_judged: Callable[[], None] = lambda: None,
) -> tuple[list[list[Principle]], Counter[str]]:
    """Return the drafts that the judge finds faithful to their clause, and the counts with the others dropped.

    A draft that the judge does not answer about is kept: a person will read it anyway.
    """
    free = asyncio.Semaphore(AT_ONCE)

    async def one(clause: Clause, draft: Principle) -> bool:
        try:
            async with free:
                return await faithfulness(clause, draft, judge) >= 0.5
        except RecordError:
            return True
        finally:
            on_judged()

    faithful = [
        await asyncio.gather(*[one(clause, draft) for draft in drafts])
        for clause, drafts in zip(clauses, kept, strict=True)
    ]
    left = [
        [draft for draft, holds in zip(drafts, row, strict=True) if holds]
        for drafts, row in zip(kept, faithful, strict=True)
    ]
    dropped = sum(map(len, kept)) - sum(map(len, left))
    unfaithful = Counter({"not faithful": dropped}) if dropped else Counter()
    return left, counts - Counter({"kept": dropped}) + unfaithful


async def faithfulness(clause: Clause, draft: Principle, judge: Model) -> float:
    """Return P(the draft asks for what the clause asks for), the mean over both orders of the options.

    Raises RecordError if the judge gives no readable answer.
    """
    first, second = await asyncio.gather(
        *[_chosen(clause, draft, options, judge) for options in (("yes", "no"), ("no", "yes"))]
    )
    return (first + 1 - second) / 2


async def _chosen(clause: Clause, draft: Principle, options: tuple[str, str], judge: Model) -> float:
    """Return P(the first option)."""
    parts = {
        "{first}": options[0],
        "{second}": options[1],
        "{instruction}": draft.revision or draft.preference or "",
        "{clause}": clause.text,
    }
    text = FAITHFUL
    for mark, part in parts.items():
        text = text.replace(mark, part)
    if judge.format == "chat" and isinstance(judge, ReadsLetters):
        asking = (Message("user", f"{text}\n\nAnswer with (A) or (B) and nothing else."),)
        return readable(await judge.letters(asking, ("A", "B"))).probabilities[0]
    return softmax_first(*await judge.score((Message("user", text), Message("assistant", ANSWER)), LETTERS))
