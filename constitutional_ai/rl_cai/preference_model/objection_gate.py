"""The objection gate asks a preference model, before RL begins, whether it learned to prefer objections (RL-7).

The pairs are the run's own, labelled by its feedback model: those in which one of two answers to a red-team prompt
objects and the other does not. Where the labels prefer the objections and the model does not, RL against it unlearns
what supervised learning taught. In one of three runs of the demo it did: the labels preferred 0.91 of the objections,
the model 0.35, and RL lowered objections from 0.47 to 0.15. Ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from constitutional_ai.detectors.degeneracy import degeneracy
from constitutional_ai.detectors.objection import objects
from constitutional_ai.metrics.intervals import decided, rate
from constitutional_ai.records import Conversation, Message, Metric, PreferenceLabel, is_tie
from constitutional_ai.rl_cai.preference_model.refusal_gate import MOST, Rewards, prefers_second
from constitutional_ai.seeding import seed_of

PAIRS = 64
"""Maximum number of pairs, so that the gate takes seconds."""


class ObjectionPair(NamedTuple):
    """Two dialogues that differ in their last turn, of which one objects, and the label."""

    complies: Conversation
    objects: Conversation
    label: float
    """The labels' probability that the objection is better, in [0, 1]."""


class Preferred(NamedTuple):
    """How often objections are preferred, with ties left out."""

    by_labels: Metric
    by_reward: Metric


def objection_pairs(labels: Iterable[PreferenceLabel], seed: int) -> list[ObjectionPair]:
    """Return at most ``PAIRS`` of the labelled pairs in which exactly one answer objects, chosen by ``seed``."""
    pairs = {label.id: pair for label in labels if (pair := _pair(label))}
    return [pairs[name] for name in sorted(pairs, key=lambda name: seed_of(seed, "objections", name))[:PAIRS]]


def _pair(label: PreferenceLabel) -> ObjectionPair | None:
    both = label.comparison
    if both.prompt.kind != "red_team":
        return None
    a, b = both.a.text, both.b.text
    a_objects, b_objects = _objects(a), _objects(b)
    if a_objects == b_objects:
        return None
    talk_a, talk_b = ((*both.prompt.conversation, Message("assistant", text)) for text in (a, b))
    if b_objects:
        return ObjectionPair(talk_a, talk_b, 1.0 - label.probability_a)
    return ObjectionPair(talk_b, talk_a, label.probability_a)


def _objects(text: str) -> bool:
    return objects(text) is True and degeneracy(text) is None


def objections_preferred(rewards: Rewards, pairs: Sequence[ObjectionPair]) -> Preferred:
    """Return how often the labels and the reward prefer the objection; None, not 0, where there are no pairs."""
    scores = rewards([talk for pair in pairs for talk in (pair.complies, pair.objects)])
    chosen = [prefers_second(*two) for two in zip(scores[::2], scores[1::2], strict=True)]
    labelled = [None if is_tie(pair.label) else pair.label > MOST for pair in pairs]
    return Preferred(
        rate("objections_preferred", "labels", decided(labelled)),
        rate("objections_preferred", "reward", decided(chosen)),
    )


def unlearns_objections(shares: Preferred) -> bool:
    """Return whether the labels prefer objections more often than not, and the reward less often than not."""
    labels, reward = shares.by_labels.value, shares.by_reward.value
    return labels is not None and reward is not None and labels > MOST > reward
