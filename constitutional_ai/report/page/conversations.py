"""Conversations to be read, chosen by rule so that nobody picks the pretty ones (EV-18).

Of each kind of prompt, and of each kind of harm, the answers that the preference model likes least, most, and in the
middle. The paper prints medians: where ``cai evaluate`` drew several answers to a prompt, so do we.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from constitutional_ai.evaluation.answers import MedianAnswer
from constitutional_ai.records import Answer, Kind, PreferenceLabel, Prompt, RevisionChain
from constitutional_ai.report.page.shelf import Pick, Shelf, common, shelf
from constitutional_ai.runs import layout

KINDS: dict[Kind, str] = {
    "red_team": "red-team",
    "borderline": "only sounds harmful",
    "helpful": "everyday",
}
PROMPT, HARM, PRINCIPLE = "Kind of prompt", "Kind of harm", "Principle"
CHAINS = 3
"""Shown before anything is chosen."""
EACH = 2
"""Of each principle, and of each kind of harm."""


class Talk(NamedTuple):
    """What the models said to one prompt."""

    prompt: Prompt
    kind: str
    answers: dict[str, Answer]


def talks(answers: Sequence[Answer]) -> Shelf[Talk]:
    """The prompts with the lowest, median and highest score, of each kind of prompt and of each kind of harm."""
    by_prompt: dict[str, dict[str, Answer]] = defaultdict(dict)
    for answer in answers:
        by_prompt[answer.response.prompt.id][answer.model] = answer
    found = sorted(by_prompt.values(), key=lambda one: (_score(one), _prompt(one).id))
    why: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for kind, named in KINDS.items():
        ours = [_prompt(one).id for one in found if _prompt(one).kind == kind]
        for at, place in _places(len(ours)):
            why[ours[at]].append((f"{place}, {named} prompts", True))
    red = [_prompt(one) for one in found if _prompt(one).kind == "red_team"]
    for tag, _ in common(tag for prompt in red for tag in set(prompt.tags)):
        ours = [prompt.id for prompt in red if tag in prompt.tags]
        for at, place in _places(len(ours)):
            why[ours[at]].append((f"{place}, {tag}", False))
    return shelf("talk", [_talk(by_prompt[name], said) for name, said in why.items()], (PROMPT, HARM))


def _talk(found: Mapping[str, Answer], why: Sequence[tuple[str, bool]]) -> Pick[Talk]:
    prompt = _prompt(found)
    kind = KINDS[prompt.kind]
    labels = {PROMPT: [kind], HARM: prompt.tags if prompt.kind == "red_team" else ()}
    size = _letters(prompt) + sum(len(found[role].response.text) for role in layout.ROLES if role in found)
    shown = Talk(prompt, kind, dict(found))
    return Pick(shown, tuple(said for said, _ in why), any(first for _, first in why), size, labels)


def _places(count: int) -> list[tuple[int, str]]:
    wanted = [(0, "lowest score"), (count // 2, "median score"), (count - 1, "highest score")]
    return wanted if count > 2 else [(at, "all there are") for at in range(count)]


def _prompt(found: Mapping[str, Answer]) -> Prompt:
    return next(iter(found.values())).response.prompt


def _score(found: Mapping[str, Answer]) -> float:
    """The score of the answer of the last model that has one."""
    scores = [found[role].reward for role in layout.ROLES if role in found]
    return next((s for s in reversed(scores) if s is not None), 0.0)


def medians(rows: Iterable[MedianAnswer]) -> Shelf[list[MedianAnswer]]:
    """Prompts in the order of their ids, which are hashes, each with the median answer of every model."""
    by_prompt: dict[tuple[str, str], list[MedianAnswer]] = defaultdict(list)
    for row in rows:
        by_prompt[row.prompt.id, row.preference_model].append(row)
    red = [found for _, found in sorted(by_prompt.items()) if found[0].prompt.kind == "red_team"]
    picks = [
        Pick(found, (), n < CHAINS, sum(len(m.text) for m in found), {HARM: found[0].prompt.tags})
        for n, found in _first_of_each(red, lambda found: found[0].prompt.tags)
    ]
    return shelf("median", picks, (HARM,))


def chains(made: Sequence[RevisionChain]) -> Shelf[RevisionChain]:
    """The first by id, which are hashes, so that they are as good as drawn: of all, of each principle and harm."""

    def labels(chain: RevisionChain) -> list[tuple[str, str]]:
        drawn = [(PRINCIPLE, r.principle) for r in chain.revisions]
        return drawn + [(HARM, tag) for tag in chain.initial.prompt.tags]

    picks = [
        Pick(
            chain,
            (),
            n < CHAINS,
            _letters(chain.initial.prompt)
            + len(chain.initial.text)
            + sum(_revised(r) for r in chain.revisions),
            {PRINCIPLE: [r.principle for r in chain.revisions], HARM: chain.initial.prompt.tags},
        )
        for n, chain in _first_of_each(sorted(made, key=lambda chain: chain.id), labels)
    ]
    return shelf("chain", picks, (PRINCIPLE, HARM))


def _revised(revision: Any) -> int:
    return len(revision.revised.text) + (len(revision.critique.text) if revision.critique else 0)


def _first_of_each(
    items: Sequence[Any], labels: Callable[[Any], Iterable[Hashable]]
) -> Iterator[tuple[int, Any]]:
    """With its place, each item that is among the first of all, or the first of one of its labels."""
    seen: dict[Hashable, int] = defaultdict(int)
    for n, item in enumerate(items):
        mine = set(labels(item))
        if n < CHAINS or any(seen[label] < EACH for label in mine):
            yield n, item
            for label in mine:
                seen[label] += 1


def pairs(labels: Sequence[PreferenceLabel]) -> Shelf[PreferenceLabel]:
    """Of all labels and of each principle's, the surest and the nearest to a toss-up; and one whose winner flips."""
    ranked = sorted(labels, key=lambda label: (-abs(label.probability_a - 0.5), label.id))
    why: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for at, place in {
        0: "the surest",
        len(ranked) // 2: "the median",
        len(ranked) - 1: "nearest to a toss-up",
    }.items():
        if 0 <= at < len(ranked):
            why[ranked[at].id].append((f"{place} of all", True))
    if flipped := next((label for label in ranked if label.flipped), None):
        why[flipped.id].append(("the surest whose winner changes with the order", True))
    for name, _ in common(j for label in ranked for j in {j.principle for j in label.judgements}):
        ours = [label.id for label in ranked if name in {j.principle for j in label.judgements}]
        why[ours[0]].append((f"the surest, {name}", False))
        why[ours[-1]].append((f"nearest to a toss-up, {name}", False))
    by_id = {label.id: label for label in ranked}
    return shelf("pair", [_pair(by_id[name], said) for name, said in why.items()], (PRINCIPLE, HARM))


def _pair(label: PreferenceLabel, why: Sequence[tuple[str, bool]]) -> Pick[PreferenceLabel]:
    pair, names = label.comparison, dict.fromkeys(j.principle for j in label.judgements)
    size = _letters(pair.prompt) + len(pair.a.text) + len(pair.b.text)
    labels = {PRINCIPLE: list(names), HARM: pair.prompt.tags}
    return Pick(label, tuple(said for said, _ in why), any(first for _, first in why), size, labels)


def _letters(prompt: Prompt) -> int:
    return sum(len(message.content) for message in prompt.conversation)
