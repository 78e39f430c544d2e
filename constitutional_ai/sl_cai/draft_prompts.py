"""Draft more prompts with a pretrained model, from examples (section 3.2; SL-3).

Each draft has its own random examples. The paper generated 140,335 red-team prompts, but does not say from how many
examples each; Bai et al. 2022a used about ten. Sifting the drafts is ours; the paper does not mention it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from constitutional_ai.detectors.degeneracy import degeneracy
from constitutional_ai.detectors.objection import objects
from constitutional_ai.errors import InputError
from constitutional_ai.models.model import Context, Format, Model
from constitutional_ai.records import Conversation, Draft, Kind, Message, Prompt
from constitutional_ai.seeding import rng
from constitutional_ai.sl_cai.respond import sample
from constitutional_ai.sl_cai.settings import Generation


def seed_prompts(train: Iterable[Prompt], kind: Kind, shots: int) -> list[Prompt]:
    """Return the prompts that may be examples, in an order that does not depend on the file's.

    Only prompts of one turn qualify: the first turn of a longer one may be a held-out prompt (SL-1). Raises InputError
    when there are fewer than ``shots``.
    """
    seeds = [p for p in train if p.kind == kind and [m.role for m in p.conversation] == ["user"]]
    if len(seeds) < shots:
        raise InputError(
            f"prompts.{kind}.generate shows the model {shots} training prompts of one turn, and prompts.{kind}.file "
            f"has {len(seeds)}. Lower generation.shots, name a larger file, or set prompts.{kind}.generate=0."
        )
    return sorted(seeds, key=lambda p: p.id)


async def draft(
    kind: Kind,
    number: int,
    *,
    seeds: Sequence[Prompt],
    model: Model,
    settings: Generation,
    seed: int,
) -> Draft:
    """Write draft ``number`` of a kind, from examples out of ``seeds``. ``sift`` decides whether it is kept."""
    shown, sampling = rng(seed, "shots", kind, number).sample(seeds, settings.shots), settings.sampling
    if model.format == "plain":
        sampling = replace(sampling, stop=(END,))
    context = request([p.conversation[0].content for p in shown], kind, model.format)
    completion = await sample(model, context, sampling, seed, "draft", kind, number)
    return Draft(f"{kind}.{number}", kind, cleaned(completion.text), tuple(p.id for p in shown), completion)


# -- the request


END = "\n"
"""The end of an item in the plain list, where each item is one line."""


def request(shots: Sequence[str], kind: Kind, fmt: Format) -> Context:
    """Return a plain list for the model to continue, or a chat in which the assistant's turns are the examples."""
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


def cleaned(reply: str) -> str:
    """Return a draft without a list marker and surrounding quotes; if it is a list, only the first item.

    >>> cleaned('1. "How do I bake bread?"')
    'How do I bake bread?'
    """
    text = reply.strip()
    if mark := MARK.match(text):
        text = NEXT.split(text[mark.end() :], maxsplit=1)[0].strip()
    opening, inner, closing = text[:1], text[1:-1], text[-1:]
    quoted = len(text) > 1 and QUOTES.get(opening) == closing and opening not in inner and closing not in inner
    return inner.strip() if quoted else text


MARK = re.compile(r"(?:\d{1,3}[.):]|[-*•])\s+")
NEXT = re.compile(rf"\n\s*{MARK.pattern}")
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


# -- sifting


class Sifted(NamedTuple):
    """The drafts that are kept, and counts of all drafts."""

    kept: list[Prompt]
    """Prompts in the order of the drafts."""
    counts: dict[Kind, Counter[str]]
    """Number of drafts that were kept, and that were dropped for each reason."""


KEPT, KNOWN, HELD_OUT, EARLIER = "kept", "near a prompt", "near a held-out prompt", "near an earlier draft"


def sift(drafts: Iterable[Draft], train: Iterable[Prompt], held_out: Iterable[Prompt]) -> Sifted:
    """Keep the usable drafts that are not near any human turn of the files or an earlier draft."""
    seen, sifted = Seen(), Sifted([], {})
    # Held-out prompts come first, so that a draft near both is counted as near a held-out prompt.
    for where, prompts in ((HELD_OUT, held_out), (KNOWN, train)):
        for text in dict.fromkeys(m.content for p in prompts for m in p.conversation if m.role == "user"):
            seen.add(text, where)
    for one in drafts:
        reason = flaw(one) or seen.near(one.text)
        sifted.counts.setdefault(one.kind, Counter({KEPT: 0}))[reason or KEPT] += 1
        if reason is None:
            seen.add(one.text, EARLIER)
            sifted.kept.append(one.prompt)
    return sifted


def in_words(counts: Counter[str]) -> str:
    """Describe how many drafts were kept and dropped.

    >>> in_words(Counter({"kept": 2, "cut off": 1}))
    'kept 2 of 3; dropped 1 cut off'
    """
    dropped = ", ".join(f"{n} {reason}" for reason, n in counts.most_common() if reason != KEPT)
    return f"kept {counts[KEPT]} of {counts.total()}" + (f"; dropped {dropped}" if dropped else "")


def flaw(draft: Draft) -> str | None:
    """Return why a draft is unusable, whatever the other drafts are; None if it is usable."""
    if not draft.text:
        return "empty"
    if draft.completion.finish_reason == "length":
        return "cut off"
    if CONTROL.search(draft.text):
        return "control text"
    if degeneracy(draft.text):
        return "degenerate"
    # A harmless prompt may well begin "I'm unable to ...", and a model has no reason to refuse to write one. A draft in
    # another language is not read, so nothing is held against it.
    return "objection" if draft.kind != "helpful" and objects(draft.text) else None


CONTROL = re.compile(
    r"\b(?:Human|Assistant|System|User) ?:|<\|[^|\s]{1,40}\|>|<EOT>|</?s>|\[/?INST\]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
"""Matches markup that opens or ends a turn, and control characters."""


# -- near-duplicates: of two texts, the sets of four-letter substrings have a Jaccard similarity of at least NEAR.
# MinHash finds the few candidates, which are compared exactly. A hundred thousand texts take minutes and 1 GB.


LETTERS = 4
NEAR = 0.6
"""Jaccard similarity of near-duplicates: at 0.6 about one or two words differ. Case and punctuation are ignored."""
BANDS, ROWS = 30, 4
"""MinHash misses 1 in 60 pairs of similarity 0.6, 1 in 4,000 of 0.7, and no identical texts."""
PERMUTATIONS = 1
"""Seed of the hashes, so that every machine finds the same texts."""


class Seen:
    """An index of texts, each with a label that says where it is from.

    >>> seen = Seen()
    >>> seen.add("How do I bake a loaf of bread?", "file")
    >>> seen.near("how do I bake a loaf of bread")
    'file'
    >>> seen.near("How do I boil an egg?")
    """

    def __init__(self) -> None:
        from datasketch import MinHash, MinHashLSH  # importing it takes half a second

        self._index: Any = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._blank: Any = MinHash(num_perm=BANDS * ROWS, seed=PERMUTATIONS, scheme="affine32")
        self._texts: list[tuple[str, str]] = []

    def add(self, text: str, where: str) -> None:
        self._index.insert(len(self._texts), self._sketch(shingles(text)))
        self._texts.append((text, where))

    def near(self, text: str) -> str | None:
        """Return the label of the first text that is near this one; None if there is none."""
        mine = shingles(text)
        candidates: list[int] = self._index.query(self._sketch(mine))
        for at in sorted(candidates):
            other, where = self._texts[at]
            if likeness(mine, shingles(other)) >= NEAR:
                return where
        return None

    def _sketch(self, parts: set[str]) -> Any:
        sketch = self._blank.copy()
        sketch.update_batch(part.encode() for part in parts)
        return sketch


def shingles(text: str) -> set[str]:
    """Return the four-letter substrings of a text's words, joined by single spaces. Never empty."""
    words = " ".join(WORD.findall(text.casefold()))
    return {words[at : at + LETTERS] for at in range(max(1, len(words) - LETTERS + 1))}


def likeness(a: set[str], b: set[str]) -> float:
    """Return the Jaccard similarity: 1 for equal sets, 0 for disjoint ones."""
    return len(a & b) / len(a | b)


WORD = re.compile(r"[^\W_]+")
