"""An engine on the weights of a model that is being trained, as they are at a given moment.

LoRA leaves the base as it is: that is packed once, and only the small updates of the adapters that are then switched on
are read anew. So a policy, its reference and a preference model on one base share the packed weights. Where all weights
are trained, they are packed anew each time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from constitutional_ai.engine.attention import Forward, TransformersForward
from constitutional_ai.engine.cpu import decoder
from constitutional_ai.engine.cpu.low_rank import base_of
from constitutional_ai.engine.sequence_engine import SequenceEngine


class WeightsOfNow:
    """Makes engines for a model of transformers, or for the base of a peft model with its adapters in place."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        """``model`` must be one that ``architectures.supports``. Packed weights are in ``dtype``."""
        self._model, self._dtype = model, dtype
        self._decoder: decoder.Decoder | None = None

    def now(self, tokenizer: Any = None, ends: Collection[int] = ()) -> SequenceEngine:
        """Return an engine for use before the next change of weights or adapters.

        ``ends`` are tokens that end a text. The tokenizer is needed where stop strings do too.
        """
        return SequenceEngine(self._forward(), tokenizer, set(ends), keep=False)

    def _forward(self) -> Forward:
        layers = self._model.model.layers
        if not decoder.supports_copy(self._model, self._dtype):
            return TransformersForward(self._model)
        if self._decoder is None or _are_trained(layers):
            self._decoder = None  # before the next one, so that memory holds one
            self._decoder = decoder.Decoder(self._model, dtype=self._dtype, copy=True)
        self._decoder.update(layers)
        return self._decoder


def _are_trained(layers: Any) -> bool:
    """Return whether a training changes the weights below the adapters."""
    return any(base_of(layer.self_attn.q_proj).weight.requires_grad for layer in layers)
