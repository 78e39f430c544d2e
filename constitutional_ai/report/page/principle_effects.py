"""Tell what each principle of a constitution did: in revisions, and in labels.

Principles are drawn at random, so what follows a principle's revisions is its effect, and that of revising at all,
which is the same for all principles. A chain counts once for a principle, by the first revision under it: revisions of
one chain are not independent. Objections are told by the detectors, which take milliseconds for an answer, so of many
chains only the first by id are read; ids are hashes, so this is a random choice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from constitutional_ai.evaluation.answer_rates import verdict
from constitutional_ai.evaluation.revision_scores import RevisionScore
from constitutional_ai.metrics.intervals import SHARE, UNBOUNDED, mean, paired_difference, rate
from constitutional_ai.records import Metric, PreferenceLabel, Revision, RevisionChain, is_tie

SCORERS = 3
"""Maximum number of preference models whose scores the table shows, the first by name."""
MOST_READ = 200
"""Chains in which the detectors read the answers before and after a principle's revision."""


class PrincipleEffect(NamedTuple):
    """What one principle did. A metric of which nothing was measured has the value None."""

    name: str
    drawn: int
    """Revisions under it, in all rounds."""
    left_out: int
    """Revisions under it that were left out for a fault. They count in no metric."""
    before: Metric
    """Share of red-team answers that object right before its revision, and right after in the next field."""
    after: Metric
    change: Metric
    """The difference of the two, paired by chain."""
    scores: tuple[Metric, ...]
    """Change of each preference model's score by its revision, in the order of ``scorers``."""
    labels: int
    """Labels in which it was a question."""
    decided: Metric
    """Share of these in which it preferred one answer."""
    confidence: Metric
    """Mean of max(P, 1 − P) in these, in [0.5, 1]."""
    agreement: Metric
    """Share of the labels of several principles that prefer the same answer as it alone does."""


class _Step(NamedTuple):
    """A revision under a principle."""

    chain: RevisionChain
    round: int
    """Its number in the chain, from 1."""

    @property
    def revision(self) -> Revision:
        return self.chain.revisions[self.round - 1]

    @property
    def before(self) -> str:
        """The answer that it revised."""
        earlier = self.chain.revisions[: self.round - 1]
        sound = (r.revised.text for r in reversed(earlier) if r.fault is None)
        return next(sound, self.chain.initial.text)


def principle_effects(
    chains: Iterable[RevisionChain],
    labels: Iterable[PreferenceLabel],
    scores: Sequence[RevisionScore] = (),
) -> list[PrincipleEffect]:
    """Return the effect of every principle that was drawn, in the order of their names."""
    steps, opinions = _steps(chains), _opinions(labels)
    changes = _score_changes(scores)
    return [
        _effect(name, steps.get(name, []), opinions.get(name, []), changes)
        for name in sorted(steps.keys() | opinions.keys())
    ]


def scorers(scores: Iterable[RevisionScore]) -> list[str]:
    """Return the names of the preference models whose scores are shown."""
    return sorted({score.preference_model for score in scores})[:SCORERS]


def _effect(
    name: str,
    steps: Sequence[_Step],
    own: Sequence[_Opinion],
    changes: Mapping[str, Mapping[tuple[str, int], float]],
) -> PrincipleEffect:
    sound = [step for step in steps if step.revision.fault is None]
    first = [*{step.chain.id: step for step in reversed(sound)}.values()]
    before, after = _objections(first)
    ties = [is_tie(one.probability_a) for one in own]
    several = [one.agrees for one in own if one.agrees is not None]
    return PrincipleEffect(
        name,
        drawn=len(steps),
        left_out=len(steps) - len(sound),
        before=rate("objects_before", name, before),
        after=rate("objects_after", name, after),
        change=paired_difference("objects_change", name, before, after, within=SHARE),
        scores=tuple(
            mean(
                f"score_change.{scorer}",
                name,
                [by_round[at] for s in first if (at := (s.chain.id, s.round)) in by_round],
                within=UNBOUNDED,
            )
            for scorer, by_round in changes.items()
        ),
        labels=len(own),
        decided=rate("decided", name, [not tie for tie in ties]),
        confidence=mean(
            "confidence", name, [max(o.probability_a, 1 - o.probability_a) for o in own], within=(0.5, 1.0)
        ),
        agreement=rate("agreement", name, several),
    )


def _steps(chains: Iterable[RevisionChain]) -> dict[str, list[_Step]]:
    steps: dict[str, list[_Step]] = defaultdict(list)
    for chain in chains:
        for number, revision in enumerate(chain.revisions, start=1):
            steps[revision.principle].append(_Step(chain, number))
    return steps


def _objections(steps: Sequence[_Step]) -> tuple[list[bool], list[bool]]:
    """Return which red-team answers object before a revision, and which after it, of those that both can be read."""
    red = [step for step in steps if step.chain.initial.prompt.kind == "red_team"]
    chosen = sorted(red, key=lambda step: step.chain.id)[:MOST_READ]
    read = [(_objects(s.chain, s.before), _objects(s.chain, s.revision.revised.text)) for s in chosen]
    known = [(before, after) for before, after in read if before is not None and after is not None]
    return [before for before, _ in known], [after for _, after in known]


def _objects(chain: RevisionChain, text: str) -> bool | None:
    first = chain.initial
    return verdict(replace(first, completion=replace(first.completion, text=text))).objects


def _score_changes(scores: Sequence[RevisionScore]) -> dict[str, dict[tuple[str, int], float]]:
    """Return by preference model the change of each chain's score by each of its revisions."""
    changes: dict[str, dict[tuple[str, int], float]] = {}
    for scorer in scorers(scores):
        own = {(s.chain, s.revision): s.score for s in scores if s.preference_model == scorer}
        changes[scorer] = {
            (chain, number): value - own[chain, number - 1]
            for (chain, number), value in own.items()
            if (chain, number - 1) in own
        }
    return changes


class _Opinion(NamedTuple):
    """The opinion of one principle in a label."""

    probability_a: float
    agrees: bool | None
    """Whether it prefers what the label prefers; None if either is a tie, or no other principle was asked."""


def _opinions(labels: Iterable[PreferenceLabel]) -> dict[str, list[_Opinion]]:
    opinions: dict[str, list[_Opinion]] = defaultdict(list)
    for label in labels:
        names = dict.fromkeys(judgement.principle for judgement in label.judgements)
        for name in names:
            own = fmean(j.probability_a for j in label.judgements if j.principle == name)
            unknown = len(names) < 2 or is_tie(own) or is_tie(label.probability_a)
            agrees = None if unknown else (own > 0.5) == (label.probability_a > 0.5)
            opinions[name].append(_Opinion(own, agrees))
    return opinions
