"""Reward an answer by how often it wins against other answers to the same prompt, without a preference model. Ours.

The answers to a prompt stand in a circle, in the order in which they were sampled, and each is compared with its next
``rl_cai.neighbours``: with 8 answers and 2 neighbours these are 16 of 28 pairs. A comparison is that of the labels, by
the recipe's feedback method and in both orders, under the principle that was drawn for the prompt. The reward is the
mean probability of winning, in [0, 1]. Over a group in which all pairs are compared its mean is always one half, so the
logged reward says nothing; ``cai evaluate`` does.

A comparison that the judge does not answer counts for neither answer. An answer has no reward if fewer than half of its
comparisons are answered; the others of its group keep theirs, and are measured by one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from constitutional_ai.constitutions.constitution import Principle
from constitutional_ai.errors import RecordError, UnreadableAnswer
from constitutional_ai.records import Comparison, Completion, Conversation, Prompt, conversation_id
from constitutional_ai.rl_cai.feedback.label import draw_principles, label
from constitutional_ai.rl_cai.reinforcement.judged_reward import JudgedReward
from constitutional_ai.seeding import rng

READABLE_SHARE = 0.5
"""Minimum share of an answer's comparisons that the judge must answer; with fewer there is no reward."""


@dataclass(frozen=True)
class GroupwiseReward(JudgedReward):
    """The mean probability that an answer wins against its neighbours in its group, in [0, 1]."""

    neighbours: int = 2

    async def judge(self, conversations: Sequence[Conversation]) -> Sequence[float | RecordError]:
        groups: dict[Conversation, list[int]] = {}
        for number, talk in enumerate(conversations):
            groups.setdefault(talk[:-1], []).append(number)
        members = list(groups.values())
        of_groups = await asyncio.gather(*[self._group([conversations[n] for n in of]) for of in members])
        rewards = {
            n: reward
            for of, given in zip(members, of_groups, strict=True)
            for n, reward in zip(of, given, strict=True)
        }
        return [rewards[n] for n in range(len(conversations))]

    async def _group(self, talks: Sequence[Conversation]) -> list[float | RecordError]:
        """Return the reward of each answer to one prompt."""
        before = talks[0][:-1]
        principles = self.applying(before, self.method.principles(self.constitution))
        drawn = draw_principles(principles, self.settings, rng(self.seed, "reward", conversation_id(before)))
        pairs = circle(len(talks), self.neighbours)
        chances = await asyncio.gather(*[self._first_wins(talks[a], talks[b], drawn) for a, b in pairs])
        won: list[list[float | RecordError]] = [[] for _ in talks]
        for (a, b), chance in zip(pairs, chances, strict=True):
            won[a].append(chance)
            won[b].append(chance if isinstance(chance, RecordError) else 1.0 - chance)
        return list(map(mean_win, won))

    async def _first_wins(
        self, one: Conversation, other: Conversation, drawn: Sequence[Principle]
    ) -> float | RecordError:
        """Return P(the answer of ``one`` is better), which is one half for equal answers, or why there is none."""
        if one == other:
            return 0.5
        a, b = [Completion(talk[-1].content, "policy", "stop", 0, 0) for talk in (one, other)]
        prompt = self.prompts.get(conversation_id(one[:-1]), Prompt.of(one[:-1], "red_team", "rl"))
        pair = Comparison(f"{conversation_id(one)}.{conversation_id(other)}", prompt, a, b)
        try:
            given = await label(
                pair,
                model=self.model,
                constitution=self.constitution,
                settings=self.settings,
                seed=self.seed,
                few_shots=self.few_shots,
                drawn=drawn,
            )
        except RecordError as error:
            return error
        return given.probability_a


def circle(answers: int, neighbours: int) -> list[tuple[int, int]]:
    """Return the pairs of answers in a circle of which each stands next to ``neighbours`` others, each pair once.

    >>> circle(4, 1)
    [(0, 1), (0, 3), (1, 2), (2, 3)]
    >>> len(circle(4, 2)), len(circle(8, 2))
    (6, 16)
    """
    steps = range(1, min(neighbours, answers // 2) + 1)
    pairs = [(one, (one + step) % answers) for one in range(answers) for step in steps]
    return sorted({(min(pair), max(pair)) for pair in pairs})


def mean_win(chances: Sequence[float | RecordError]) -> float | RecordError:
    """Return the mean of the chances that could be read, or why there is none if they are too few."""
    read = [x for x in chances if not isinstance(x, RecordError)]
    if read and len(read) >= READABLE_SHARE * len(chances):
        return fmean(read)
    errors = [x for x in chances if isinstance(x, RecordError)]
    return (
        errors[-1] if errors else UnreadableAnswer("there is no other answer to the prompt to compare it with")
    )
