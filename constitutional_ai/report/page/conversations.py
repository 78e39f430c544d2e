"""Choose the conversations of the page by rule, so that they are not selected to flatter the models (EV-18).

For each kind of prompt and of harm, these are the prompts with the lowest, the median and the highest score. Like the
paper, the page also shows median answers, if ``cai evaluate`` sampled several answers per prompt.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from constitutional_ai.evaluation.answers import MedianAnswer
from constitutional_ai.records import Answer, Kind, PreferenceLabel, Prompt, RevisionChain
from constitutional_ai.runs import layout

Item = TypeVar("Item")
KINDS: dict[Kind, str] = {"red_team": "red-team", "borderline": "borderline", "helpful": "everyday"}
BUDGET = 500_000
"""Maximum number of characters of the records in one section, so that the page stays below 2 MB."""
LABELS = 20
"""Maximum number of kinds of harm, or of principles, to choose examples of: the most common ones."""
FIRST = 3
"""Number of unfolded items that are chosen by id."""
EACH = 2
"""Number of items per principle, and per kind of harm, that are chosen by id."""


class Pick(NamedTuple, Generic[Item]):
    item: Item
    reasons: tuple[str, ...]
    """The rules that chose it."""
    group: str
    """The principle or the kind of harm under which it is folded; empty if it is unfolded."""


class Talk(NamedTuple):
    """The answers of all models to one prompt."""

    prompt: Prompt
    kind: str
    answers: dict[str, Answer]


def grouped(picks: Iterable[Pick[Item]]) -> dict[str, list[Pick[Item]]]:
    """Return picks by group, the unfolded ones first, until the section is full."""
    groups: dict[str, list[Pick[Item]]] = {}
    room = BUDGET
    for pick in sorted(picks, key=lambda pick: pick.group):
        if room > 0:
            groups.setdefault(pick.group, []).append(pick)
        room -= len(repr(pick.item))
    return groups


def common(labels: Iterable[str]) -> list[str]:
    """Return the most common labels in alphabetical order."""
    ranked = sorted(Counter(labels).items(), key=lambda each: (-each[1], each[0]))
    return sorted(label for label, _ in ranked[:LABELS])


def _chosen(reasons: Iterable[tuple[str, str, str]], items: Mapping[str, Item]) -> dict[str, list[Pick[Item]]]:
    """Return the items that ``reasons`` choose: triples of an item's id, a reason and a group."""
    by_id: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, reason, group in reasons:
        by_id[name].append((group, reason))
    return grouped(
        Pick(items[name], tuple(reason for _, reason in why), min(why)[0]) for name, why in by_id.items()
    )


def talks(answers: Sequence[Answer]) -> dict[str, list[Pick[Talk]]]:
    """Choose prompts with the lowest, median and highest score of each kind of prompt and of harm."""
    by_id: dict[str, Talk] = {}
    for answer in answers:
        prompt = answer.response.prompt
        by_id.setdefault(prompt.id, Talk(prompt, KINDS[prompt.kind], {})).answers[answer.model] = answer
    ranked = sorted(by_id.values(), key=lambda talk: (_score(talk.answers), talk.prompt.id))
    red = [talk for talk in ranked if talk.prompt.kind == "red_team"]
    tags = common(tag for talk in red for tag in set(talk.prompt.tags))
    lists = [(f"{kind} prompts", "", [t for t in ranked if t.kind == kind]) for kind in KINDS.values()]
    lists += [(tag, tag, [t for t in red if tag in t.prompt.tags]) for tag in tags]

    reasons = [
        (own[at].prompt.id, f"{place}, {what}", group)
        for what, group, own in lists
        for at, place in _places(len(own))
    ]
    return _chosen(reasons, by_id)


def _places(count: int) -> list[tuple[int, str]]:
    places = [(0, "lowest score"), (count // 2, "median score"), (count - 1, "highest score")]
    return places if count > 2 else [(at, "one of few") for at in range(count)]


def _score(answers: Mapping[str, Answer]) -> float:
    """Return the score of the last model's answer that has one."""
    scores = [answers[role].reward for role in layout.ROLES if role in answers]
    return next((s for s in reversed(scores) if s is not None), 0.0)


def medians(rows: Iterable[MedianAnswer]) -> dict[str, list[Pick[list[MedianAnswer]]]]:
    """Choose the first red-team prompts by id, with the median answer of every model."""
    by_prompt: dict[tuple[str, str], list[MedianAnswer]] = defaultdict(list)
    for row in rows:
        by_prompt[row.prompt.id, row.preference_model].append(row)
    red = [own for _, own in sorted(by_prompt.items()) if own[0].prompt.kind == "red_team"]
    return _first_of_each(red, lambda own: own[0].prompt.tags)


def chains(every: Sequence[RevisionChain]) -> dict[str, list[Pick[RevisionChain]]]:
    """Choose the first by id of all, of each principle and of each harm; ids are hashes, so the choice is random."""

    def labels(chain: RevisionChain) -> list[str]:
        return [*(revision.principle for revision in chain.revisions), *chain.initial.prompt.tags]

    return _first_of_each(sorted(every, key=lambda chain: chain.id), labels)


def _first_of_each(
    items: Iterable[Item], labels_of: Callable[[Item], Iterable[str]]
) -> dict[str, list[Pick[Item]]]:
    """Choose the items that are among the first of all, or of one of their labels, in which they are folded then."""
    seen: Counter[str] = Counter()
    picks = []
    for n, item in enumerate(items):
        labels = list(dict.fromkeys(labels_of(item)))
        new = [label for label in labels if seen[label] < EACH]
        if n < FIRST or new:
            picks.append(Pick(item, (), "" if n < FIRST else new[0]))
            seen.update(labels)
    return grouped(picks)


def pairs(labels: Sequence[PreferenceLabel]) -> dict[str, list[Pick[PreferenceLabel]]]:
    """Choose the most and the least certain label of all and of each principle, and one that flips."""
    ranked = sorted(labels, key=lambda label: (-abs(label.probability_a - 0.5), label.id))
    reasons = [
        (ranked[at].id, f"the {which} of all", "")
        for at, which in ((0, "most certain"), (len(ranked) // 2, "median"), (-1, "least certain"))
        if ranked
    ]
    if flipped := next((label for label in ranked if label.flipped), None):
        reasons.append((flipped.id, "the most certain whose winner changes with the order", ""))
    principles = {label.id: {j.principle for j in label.judgements} for label in ranked}
    for name in common(principle for own in principles.values() for principle in own):
        ids = [label for label, own in principles.items() if name in own]
        reasons += [(ids[0], f"the most certain, {name}", name), (ids[-1], f"the least certain, {name}", name)]

    return _chosen(reasons, {label.id: label for label in ranked})
