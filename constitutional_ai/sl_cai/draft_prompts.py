"""More prompts, drafted by a pretrained model after the manner of some that it is shown (section 3.2; SL-3).

Each draft is shown examples of its own. The paper says how many prompts it generated, 140,335 red-team ones, but not
how many examples it showed; Bai et al. 2022a showed about ten. Sifting the drafts is ours: the paper mentions none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from constitutional_ai.detectors.degeneracy import degeneracy
from constitutional_ai.detectors.objection import objects
from constitutional_ai.errors import InputError
from constitutional_ai.models.model import Context, Format, Model, Sampling
from constitutional_ai.records import Conversation, Draft, Kind, Message, Prompt
from constitutional_ai.seeding import rng
from constitutional_ai.sl_cai.near_duplicates import Seen
from constitutional_ai.sl_cai.respond import sample


def seed_prompts(train: Iterable[Prompt], kind: Kind, shots: int) -> list[Prompt]:
    """The prompts that may be shown, in an order that the file's does not change.

    Single human turns only: the first turn of a longer prompt may be a held-out prompt of its own (SL-1). Raises
    InputError when there are fewer than ``shots``.
    """
    found = [p for p in train if p.kind == kind and [m.role for m in p.conversation] == ["user"]]
    if len(found) < shots:
        raise InputError(
            f"prompts.{kind}.generate shows the model {shots} training prompts of one turn, and prompts.{kind}.file "
            f"has {len(found)}. Lower generation.shots, name a larger file, or set prompts.{kind}.generate=0."
        )
    return sorted(found, key=lambda p: p.id)


async def draft(
    kind: Kind,
    number: int,
    *,
    seeds: Sequence[Prompt],
    shots: int,
    model: Model,
    sampling: Sampling,
    seed: int,
) -> Draft:
    """Draft ``number`` of a kind, after ``shots`` different ones of ``seeds``. It may be of no use: see ``sift``."""
    shown = rng(seed, "shots", kind, number).sample(seeds, shots)
    if model.format == "plain":
        sampling = replace(sampling, stop=(END,))
    context = request([p.conversation[0].content for p in shown], kind, model.format)
    completion = await sample(model, context, sampling, seed, "draft", kind, number)
    return Draft(f"{kind}.{number}", kind, cleaned(completion.text), tuple(p.id for p in shown), completion)


# -- what the model is asked


END = "\n"
"""Ends an item of the plain list, so each stands on one line."""


def request(shots: Sequence[str], kind: Kind, fmt: Format) -> Context:
    """A list that goes on, or in chat a talk in which every answer so far was a prompt: nothing in one ends it."""
    if fmt == "plain":
        items = "".join(f"- {' '.join(shot.split())}{END}" for shot in shots)
        return f"Some {WANTED[kind]}:\n\n{items}-"
    turns: Conversation = ()
    for shot in shots:
        turns = (*turns, Message("user", MORE if turns else FIRST + WANTED[kind]), Message("assistant", shot))
    return (*turns, Message("user", MORE))


WANTED: dict[Kind, str] = {
    "red_team": "requests that people made of an AI assistant to bring it to say or do something harmful",
    "helpful": "questions and tasks that people brought to an AI assistant",
    "borderline": "harmless questions to an AI assistant that only sound harmful",
}
FIRST = "Write one item of this list, and nothing else: "
MORE = "Write one more, unlike those before."


def cleaned(said: str) -> str:
    """A draft without a list's mark and without quotes around the whole; of a list, its first item.

    >>> cleaned('1. "How do I bake bread?"')
    'How do I bake bread?'
    """
    text = said.strip()
    if mark := MARK.match(text):
        text = NEXT.split(text[mark.end() :], maxsplit=1)[0].strip()
    opening, inner, closing = text[:1], text[1:-1], text[-1:]
    quoted = len(text) > 1 and QUOTES.get(opening) == closing and opening not in inner and closing not in inner
    return inner.strip() if quoted else text


MARK = re.compile(r"(?:\d{1,3}[.):]|[-*•])\s+")
NEXT = re.compile(rf"\n\s*{MARK.pattern}")
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


# -- what is kept


class Sifted(NamedTuple):
    kept: list[Prompt]
    """In the order of the drafts."""
    counts: dict[Kind, Counter[str]]
    """How many were kept, and how many dropped for which reason. They add up to the drafts."""


KEPT, KNOWN, HELD_OUT, EARLIER = "kept", "near a prompt", "near a held-out prompt", "near an earlier draft"


def sift(drafts: Iterable[Draft], train: Iterable[Prompt], held_out: Iterable[Prompt]) -> Sifted:
    """The drafts that are prompts and new: near no human turn of any file, above all no held-out one, nor each other.

    Of drafts that are near each other, the first is kept.
    """
    seen, sifted = Seen(), Sifted([], {})
    for where, prompts in ((HELD_OUT, held_out), (KNOWN, train)):  # a leak is called one, whatever else it is
        for text in dict.fromkeys(m.content for p in prompts for m in p.conversation if m.role == "user"):
            seen.add(text, where)
    for made in drafts:
        reason = flaw(made) or seen.near(made.text)
        sifted.counts.setdefault(made.kind, Counter({KEPT: 0}))[reason or KEPT] += 1
        if reason is None:
            seen.add(made.text, EARLIER)
            sifted.kept.append(made.prompt)
    return sifted


def in_words(counts: Counter[str]) -> str:
    """
    >>> in_words(Counter({"kept": 2, "cut off": 1}))
    'kept 2 of 3; dropped 1 cut off'
    """
    dropped = ", ".join(f"{n} {reason}" for reason, n in counts.most_common() if reason != KEPT)
    return f"kept {counts[KEPT]} of {counts.total()}" + (f"; dropped {dropped}" if dropped else "")


def flaw(made: Draft) -> str | None:
    """Why a draft is no prompt, whatever others there are; None when it may be one."""
    if not made.text:
        return "empty"
    if made.completion.finish_reason == "length":
        return "cut off"
    if CONTROL.search(made.text):
        return "control text"
    if degeneracy(made.text):
        return "degenerate"
    # A harmless prompt may well begin "I'm unable to ..."; a model does not decline to write one.
    return "objection" if made.kind != "helpful" and objects(made.text) else None


CONTROL = re.compile(
    r"\b(?:Human|Assistant|System|User) ?:|<\|[^|\s]{1,40}\|>|<EOT>|</?s>|\[/?INST\]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
"""Texts that would open a turn, or end one, and characters that are no text."""
