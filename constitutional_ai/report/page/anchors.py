"""Name the places of a page at which the examples of a principle stand, so that tables can lead to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from constitutional_ai.records import PreferenceLabel, RevisionChain
from constitutional_ai.report.page.conversations import Pick

Chains = Mapping[str, Sequence[Pick[RevisionChain]]]
Pairs = Mapping[str, Sequence[Pick[PreferenceLabel]]]


class Example(NamedTuple):
    """A place on the page that shows what a principle did."""

    what: str
    anchor: str


def anchors(picks: Chains | Pairs, prefix: str) -> dict[str, str]:
    """Return the anchor of every record that the page shows, by id."""
    shown = [pick.item.id for own in picks.values() for pick in own]
    return {name: f"{prefix}-{number}" for number, name in enumerate(shown, start=1)}


def examples(chains: Chains, pairs: Pairs) -> dict[str, list[Example]]:
    """Return by principle the first revision and the first labelled pair that the page shows of it."""
    revised = [
        (pick.item.id, [r.principle for r in pick.item.revisions]) for own in chains.values() for pick in own
    ]
    judged = [
        (pick.item.id, [j.principle for j in pick.item.judgements]) for own in pairs.values() for pick in own
    ]
    shown: dict[str, list[Example]] = defaultdict(list)
    for what, records, places in (
        ("a revision", revised, anchors(chains, "revision")),
        ("a label", judged, anchors(pairs, "pair")),
    ):
        for principle, record in _first(records).items():
            shown[principle].append(Example(what, places[record]))
    return shown


def _first(records: Iterable[tuple[str, Sequence[str]]]) -> dict[str, str]:
    first: dict[str, str] = {}
    for record, principles in records:
        for name in principles:
            first.setdefault(name, record)
    return first
