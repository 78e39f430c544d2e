"""Rate conversations with a trained regressor of harmfulness (EV-15). It imports torch: import it in functions."""

from __future__ import annotations

from typing import Any

from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.training import regression


class HarmfulnessModel(PreferenceModel):
    """A model of ``cai harmfulness`` that rates a whole conversation on the scale of 0 to 4, unclipped."""

    def _by_engine_of(self, model: Any) -> None:
        """Leave the model as it is: every token of a conversation counts, not the last one alone."""

    def _forward(self, batch: Any) -> Any:
        return regression.scores(self._model, dict(batch))
