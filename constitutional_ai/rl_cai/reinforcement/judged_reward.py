"""What the rewards by the feedback model share: principles by prompt, and answers that could not be judged."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from constitutional_ai.constitutions.constitution import Constitution, Principle, applying_to
from constitutional_ai.errors import RecordError, TooManyFailures
from constitutional_ai.models.model import Model
from constitutional_ai.records import Conversation, Prompt, conversation_id
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.rl_cai.feedback.method import FeedbackMethod
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots


@dataclass(frozen=True)
class JudgedReward(ABC):
    """A function that gives each conversation's last answer a reward, or None if it could not be judged.

    An answer without a reward is left out of the update, and counted. Raises TooManyFailures if none has one.
    """

    model: Model
    constitution: Constitution
    settings: Feedback
    seed: int
    few_shots: FewShots | None = None
    """Worked examples before questions, in the plain format only."""
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    """The prompts by their ids, for their kinds and tags; a principle with a scope is used for no other prompt."""

    @property
    def method(self) -> FeedbackMethod:
        """The recipe's feedback method."""
        return METHODS[self.settings.method]

    def __call__(self, conversations: Sequence[Conversation]) -> list[float | None]:
        return asyncio.run(self._all(conversations))

    async def _all(self, conversations: Sequence[Conversation]) -> list[float | None]:
        rewards = await self.judge(conversations)
        errors = [x for x in rewards if isinstance(x, RecordError)]
        if errors and len(errors) == len(rewards):
            raise TooManyFailures(
                f"the feedback model judged none of {len(rewards)} answers; the last: {errors[-1]}"
            )
        return [None if isinstance(x, RecordError) else x for x in rewards]

    @abstractmethod
    async def judge(self, conversations: Sequence[Conversation]) -> Sequence[float | RecordError]:
        """Return the reward of each last answer, or why there is none."""

    def applying(self, before: Conversation, principles: Sequence[Principle]) -> tuple[Principle, ...]:
        """Return the principles that apply to the prompt ``before`` the answer."""
        return applying_to(self.prompts.get(conversation_id(before)), principles)
