"""Some of a run's records, chosen by rule, with a few kinds of them to choose from on the page: by CSS alone.

A choice has a key of ours, which is a class of its items and stands in the style sheet; its label is a stranger's text
and never does. Where a browser cannot do it (``:has``), every item is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
BUDGET = 400_000
"""Characters of strangers' text on one shelf, so that the page stays below 2 MB."""
CHOICES = 20
"""A run may have any number of tags."""
FIRST = "first"
"""The key of what is shown before anything is chosen."""


class Choice(NamedTuple):
    key: str
    label: str
    held: int


class Pick(NamedTuple, Generic[Item]):
    item: Item
    why: tuple[str, ...]
    """By which rules it was chosen."""
    first: bool
    """Whether it is shown before anything is chosen."""
    size: int
    """Characters."""
    labels: Mapping[str, Sequence[str]]
    """What it may be found by, for each group of choices."""


class Shelf(NamedTuple, Generic[Item]):
    name: str
    groups: list[tuple[str, list[Choice]]]
    items: list[tuple[Pick[Item], str]]
    """Each with its classes."""

    @property
    def choices(self) -> list[Choice]:
        return [choice for _, choices in self.groups for choice in choices]

    @property
    def first(self) -> int:
        return sum(pick.first for pick, _ in self.items)


def shelf(name: str, picks: Iterable[Pick[Item]], groups: Sequence[str]) -> Shelf[Item]:
    """What is shown first comes first, and then as much as there is room for."""
    kept = list(_within(sorted(picks, key=lambda pick: not pick.first)))
    found: list[tuple[str, list[Choice]]] = []
    keys: dict[tuple[str, str], str] = {}
    for group in groups:
        labels = common(label for pick in kept for label in set(pick.labels.get(group, ())))
        chosen = [Choice(f"{name}-{len(keys) + n}", label, count) for n, (label, count) in enumerate(labels)]
        keys |= {(group, choice.label): choice.key for choice in chosen}
        found.append((group, chosen))
    return Shelf(name, found, [(pick, " ".join(_classes(name, pick, keys))) for pick in kept])


def common(labels: Iterable[str]) -> list[tuple[str, int]]:
    """The most common labels, with how often they come, in the order of their names."""
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return sorted(sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:CHOICES])


def _within(picks: Iterable[Pick[Item]]) -> Iterable[Pick[Item]]:
    room = BUDGET
    for pick in picks:
        if room > 0:
            yield pick
        room -= pick.size


def _classes(name: str, pick: Pick[Item], keys: Mapping[tuple[str, str], str]) -> Iterable[str]:
    if pick.first:
        yield f"{name}-{FIRST}"
    for group, labels in pick.labels.items():
        yield from (keys[group, label] for label in dict.fromkeys(labels) if (group, label) in keys)
