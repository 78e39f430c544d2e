"""Make the preference model's training pairs from AI harmlessness and human helpfulness labels (PM-1, PM-2).

Trainers of others read ``chosen`` as the better answer, so it is the likelier one. ``p_chosen`` is its soft label, and
``tie`` says that the label prefers neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from constitutional_ai.data.hub_files import local_file
from constitutional_ai.data.pairs import load_pairs
from constitutional_ai.detectors.degeneracy import degeneracy
from constitutional_ai.detectors.objection import refuses
from constitutional_ai.records import (
    Conversation,
    Message,
    PreferenceLabel,
    RevisionChain,
    as_messages,
    conversation_id,
    is_tie,
)
from constitutional_ai.seeding import seed_of

BUILT_IN = Path(__file__).parents[2] / "data" / "helpfulness_pairs.jsonl"
AI, PEOPLE, HARMLESS = "ai", "people", "harmless"
HELPFUL = (PEOPLE, HARMLESS)
Rows = list[dict[str, Any]]


def examples(labels: Iterable[PreferenceLabel]) -> Rows:
    """Return rows of AI feedback, each with the likelier of its two answers as ``chosen`` (FB-14)."""
    rows = []
    for label in labels:
        a, b, p = label.comparison.a.text, label.comparison.b.text, label.probability_a
        sides = (a, b, p) if p >= 0.5 else (b, a, 1 - p)
        rows.append(_row(label.id, label.comparison.prompt.conversation, *sides, AI))
    return rows


def over_refusals(chains: Iterable[RevisionChain]) -> Rows:
    """Return pairs of an answer to a harmless prompt and a revision of it that refuses, the answer chosen.

    People wrote that the prompt is harmless, so the label is hard. Answers that refuse or are broken make no pair,
    neither do revisions that do not refuse, nor red-team prompts.
    """
    return [
        _row(chain.id, chain.initial.prompt.conversation, chain.initial.text, chain.answer, 1.0, HARMLESS)
        for chain in chains
        if not chain.asks_for_harm
        and refuses(chain.answer)
        and not (refuses(chain.initial.text) or degeneracy(chain.initial.text))
    ]


class Helpfulness(NamedTuple):
    """People's comparisons from a file."""

    rows: Rows
    unusable: Mapping[str, int]
    """Number of records of the file that were left out, by reason."""


def helpfulness_file(name: str) -> Path:
    """Return the path of a file of people's comparisons, or of the built-in file; one of the hub is downloaded."""
    return BUILT_IN if name == "built-in" else local_file(name)


def helpfulness(name: str, limit: int | None, seed: int, stronger_than: float = 0.0) -> Helpfulness:
    """Return at most ``limit`` of people's helpfulness comparisons, with hard labels (PM-1).

    ``name`` is any file that ``load_pairs`` reads. Comparisons with a strength are used only if it is above
    ``stronger_than``, so ties never are (PM-5). Raises InputError that names a wrong line.
    """
    pairs, unusable = load_pairs(helpfulness_file(name))
    strong = [pair for pair in pairs if pair.strength is None or pair.strength > stronger_than]
    tied = sum(pair.strength == 0 for pair in pairs)
    weak = len(pairs) - len(strong) - tied
    left_out = {"a tie": tied, f"a preference no stronger than {stronger_than:g}": weak}
    unusable = {**unusable, **{reason: count for reason, count in left_out.items() if count}}
    drawn = sorted(strong, key=lambda pair: seed_of(seed, "helpfulness", pair.id))[:limit]
    return Helpfulness([_row(p.id, p.conversation, p.chosen, p.rejected, 1.0, PEOPLE) for p in drawn], unusable)


def _row(
    name: str, conversation: Conversation, chosen: str, rejected: str, p_chosen: float, source: str
) -> dict[str, Any]:
    return {
        "id": name,
        "prompt_id": conversation_id(conversation),
        "source": source,
        "prompt": as_messages(conversation),
        "chosen": as_messages((Message("assistant", chosen),)),
        "rejected": as_messages((Message("assistant", rejected),)),
        "p_chosen": p_chosen,
        "tie": is_tie(p_chosen),
    }


def held_out(rows: Sequence[dict[str, Any]], share: float, seed: int) -> tuple[Rows, Rows]:
    """Return the held-out pairs and the training pairs of ``rows``, with no prompt in both.

    The held-out pairs are those of ``share`` of each source's prompts, but never of all.
    """
    drawn: set[str] = set()
    for source in {row["source"] for row in rows}:
        prompts = {row["prompt_id"] for row in rows if row["source"] == source}
        in_order = sorted(prompts, key=lambda prompt: seed_of(seed, "held out", prompt))
        drawn.update(in_order[: min(round(share * len(prompts)), len(prompts) - 1)])
    out, rest = [[r for r in rows if (r["prompt_id"] in drawn) == wanted] for wanted in (True, False)]
    return out, rest


def conversations(row: dict[str, Any]) -> tuple[Conversation, Conversation]:
    """Return the two whole conversations of a pair, the one with the chosen answer first."""
    chosen, rejected = [
        tuple(Message(m["role"], m["content"]) for m in row["prompt"] + row[side])
        for side in ("chosen", "rejected")
    ]
    return chosen, rejected
