"""Score conversations one at a time, so that one that cannot be scored fails alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from constitutional_ai.records import Conversation
    from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel


class CheckedScorer:
    """A preference model that checks each conversation before it joins a batch."""

    def __init__(self, folder: Path, model_type: type[PreferenceModel] | None = None) -> None:
        """Load the model in ``folder``. Raises ModelError if there is none."""
        from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel, Scorable

        self._model, self._scorable = (model_type or PreferenceModel)(folder), Scorable(folder)

    def check(self, conversation: Conversation) -> None:
        """Raise RecordError if the conversation cannot be scored, for example because it is too long."""
        self._scorable.check(conversation)

    async def score(self, conversation: Conversation) -> float:
        """Return the score. Raises RecordError as ``check`` does, and ModelError if the score is not finite."""
        from constitutional_ai.rl_cai.preference_model.scorer import finite

        self.check(conversation)
        return finite([await self._model.reward(conversation)])[0]
