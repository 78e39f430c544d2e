"""What is no revision: cleaned away before it is built upon or trained on, and always counted (pitfall 18).

Ours: the paper mentions no clean-up, so the recipe ``paper`` does none. Chat models hand a revision over with an opener
such as "Here is the revised response:", and a finetuned model would say it to everybody; small ones also say
nothing, say again what was there, or loop.
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
"""Faults in words."""


def cleaned(revision: Revision, before: str, rules: Collection[Rule]) -> Revision:
    """The revision without its opener, and with its fault if it has one.

    ``before`` is the answer that was revised. Only ``rules`` are applied. Raises EmptyAnswer when nothing is left and
    that is not one of them.
    """
    cut, text = without_opener(revision.revised.text) if "opener" in rules else ("", revision.revised.text)
    if not text.strip() and "empty" not in rules:
        raise EmptyAnswer("the model said nothing")
    others = [before] + ([revision.critique.text] if revision.critique else [])
    kept = replace(revision.revised, text=text)
    return replace(revision, revised=kept, cut=cut or None, fault=_fault(text, others, rules))


def _fault(text: str, others: Iterable[str], rules: Collection[Rule]) -> Rule | None:
    words = text.split()
    if not words:
        return "empty"
    if "identical" in rules and any(words == other.split() for other in others):
        return "identical"
    # A loop goes on until the model is cut off, so it may begin after what the detector reads of a long text.
    if "repetition" in rules and "looping" in (degeneracy(text), degeneracy(text[-READ:])):
        return "repetition"
    return None


def hits(chains: Iterable[RevisionChain]) -> Counter[str]:
    """How many revisions each rule has hit. One that was cut and is faulty all the same counts for both."""
    found: Counter[str] = Counter()
    for revision in (r for chain in chains for r in chain.revisions):
        found.update((["opener"] if revision.cut else []) + ([revision.fault] if revision.fault else []))
    return found


def in_words(chains: Collection[RevisionChain]) -> str:
    """How many revisions there are, and what was cut off or left out of them, if anything was."""
    found, total = hits(chains), sum(len(chain.revisions) for chain in chains)
    cut = found.pop("opener", 0)
    said = [f"{total:,} revision{'' if total == 1 else 's'}"]
    said += [f"{cut:,} with an opener cut off"] if cut else []
    faults = ", ".join(f"{count:,} {fault}" for fault, count in sorted(found.items()))
    said += [f"{found.total():,} neither built upon nor trained on ({faults})"] if found else []
    return "; ".join(said)
