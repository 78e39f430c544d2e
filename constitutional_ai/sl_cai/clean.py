"""Clean up revisions before they are revised further or trained on, and count every hit (pitfall 18).

This is ours: the paper mentions no clean-up, so the recipe ``paper`` does none. Chat models put an opener such as "Here
is the revised response:" before a revision, and a model finetuned on openers would always write them. Small models also
return no text, repeat the previous text, or loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Literal, get_args

from constitutional_ai.detectors.degeneracy import READ, degeneracy
from constitutional_ai.detectors.opener import without_opener
from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.records import Revision, RevisionChain

Rule = Literal["opener", "empty", "identical", "repetition"]
RULES: tuple[Rule, ...] = get_args(Rule)

WHY = {
    "empty": "nothing was left",
    "identical": "the same as the answer before, or as the critique",
    "repetition": "it loops",
}
"""Descriptions of the faults, for reports."""


def cleaned(revision: Revision, before: str, rules: Collection[Rule]) -> Revision:
    """Return the revision with its opener cut off and its ``fault`` set.

    ``before`` is the answer that was revised. Raises EmptyAnswer when the text is empty and ``rules`` lacks ``empty``.
    """
    cut, text = without_opener(revision.revised.text) if "opener" in rules else ("", revision.revised.text)
    if not text.strip() and "empty" not in rules:
        raise EmptyAnswer("the model returned no text")
    others = [before] + ([revision.critique.text] if revision.critique else [])
    kept = replace(revision.revised, text=text)
    return replace(revision, revised=kept, cut=cut or None, fault=_fault(text, others, rules))


def _fault(text: str, others: Iterable[str], rules: Collection[Rule]) -> Rule | None:
    words = text.split()
    if not words:
        return "empty"
    if "identical" in rules and any(words == other.split() for other in others):
        return "identical"
    # The detector reads only the start of a long text, but a loop may begin later. It lasts until the end of the text.
    if "repetition" in rules and "looping" in (degeneracy(text), degeneracy(text[-READ:])):
        return "repetition"
    return None


def hits(chains: Iterable[RevisionChain]) -> Counter[str]:
    """Count the revisions that each rule has hit. A revision with an opener and a fault counts for both."""
    counts: Counter[str] = Counter()
    for revision in (r for chain in chains for r in chain.revisions):
        counts.update((["opener"] if revision.cut else []) + ([revision.fault] if revision.fault else []))
    return counts


def in_words(chains: Collection[RevisionChain]) -> str:
    """Describe how many revisions there are, and how many were cut or left out."""
    counts, total = hits(chains), sum(len(chain.revisions) for chain in chains)
    cut = counts.pop("opener", 0)
    parts = [f"{total:,} revision{'' if total == 1 else 's'}"]
    parts += [f"{cut:,} with an opener cut off"] if cut else []
    faults = ", ".join(f"{count:,} {fault}" for fault, count in sorted(counts.items()))
    parts += [f"{counts.total():,} neither built upon nor trained on ({faults})"] if counts else []
    return "; ".join(parts)
