"""The regressor of absolute harmfulness at work (EV-15). Imports torch: import it where it is needed."""

from __future__ import annotations

from typing import Any

from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.training import regression


class HarmfulnessModel(PreferenceModel):
    """A folder that ``cai harmfulness`` trained: for each whole conversation a number on the scale of 0 to 4, clipped
    nowhere."""

    def _forward(self, batch: Any) -> Any:
        return regression.scores(self._model, dict(batch))
