"""Reward an answer by what is true of it, without a preference model: the constitution's propositions. Ours.

As in rule-based rewards (Mu et al. 2024) the feedback model is asked each yes-or-no question about each answer. The
reward is the mean probability of the wanted answers, by the principles' weights, in [0, 1]. Every proposition that
applies to the prompt is asked, and none is drawn.

An answer of which the judge leaves one proposition unanswered has no reward: the mean over the others would measure it
by another standard than the answers that it is compared with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from constitutional_ai.constitutions.constitution import Principle
from constitutional_ai.errors import RecordError
from constitutional_ai.records import Conversation
from constitutional_ai.rl_cai.feedback.yes_or_no import probability_of_yes
from constitutional_ai.rl_cai.reinforcement.judged_reward import JudgedReward


class PropositionReward(JudgedReward):
    """The weighted mean probability that the propositions are as the constitution wants them, in [0, 1]."""

    async def judge(self, conversations: Sequence[Conversation]) -> Sequence[float | RecordError]:
        return await asyncio.gather(*[self._one(talk) for talk in conversations])

    async def _one(self, talk: Conversation) -> float | RecordError:
        principles = self.applying(talk[:-1], self.constitution.propositions)
        try:
            chances = await asyncio.gather(*[self._as_wanted(talk, principle) for principle in principles])
        except RecordError as error:
            return error
        weights = [principle.weight for principle in principles]
        return sum(w * chance for w, chance in zip(weights, chances, strict=True)) / sum(weights)

    async def _as_wanted(self, talk: Conversation, principle: Principle) -> float:
        yes = await probability_of_yes(talk, principle.proposition or "", self.model, self.settings)
        return yes if principle.wanted else 1.0 - yes
