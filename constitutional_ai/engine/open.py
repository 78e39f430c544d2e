"""The door of the engine: all that the rest of the package uses of it, beside ``sampling``.

Importing this module loads no torch.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from constitutional_ai.engine.cpu.process import tune_process
from constitutional_ai.engine.cpu.threads import all_threads, release_threads
from constitutional_ai.engine.prefill_chunks import common_prefix

if TYPE_CHECKING:
    import torch

    from constitutional_ai.engine.sampling import Decoding, Sampled

__all__ = [
    "Engine",
    "LiveEngine",
    "SharingEngine",
    "all_threads",
    "common_prefix",
    "int8_dtype",
    "open_engine",
    "open_live_engine",
    "release_threads",
    "round_to_int8",
    "supports_config",
    "tune_process",
]


class Engine(Protocol):
    """Generates and scores batches of token ids."""

    shares: bool
    """Whether a prefix that the sequences of a batch share is computed once."""

    def generate(
        self, prompts: list[list[int]], decoding: Decoding, cancelled: threading.Event
    ) -> list[list[int]]:
        """Return the completion ids of each prompt, the end token included."""

    def score(self, contexts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Return the natural log-probability of every continuation of each context."""

    def tokens_to_score(self, context: list[int], continuations: Sequence[list[int]]) -> int:
        """Return the tokens of one sequence in ``score``, for limits on memory."""

    def paths(self) -> dict[str, str]:
        """Return which code computes attention and matrix products."""


class SharingEngine(Engine, Protocol):
    """An engine that computes once what sequences share, for trainings and for models with other heads too."""

    def sample(self, prompts: list[list[int]], decoding: Decoding) -> list[Sampled]:
        """Complete each prompt, and tell the log-probabilities of what was drawn."""

    def logps(
        self, contexts: list[list[int]], continuations: list[list[list[int]]], temperature: float
    ) -> list[list[torch.Tensor]]:
        """Return the natural log-probability of each token of every continuation of each context; none is empty."""

    def outputs(self, texts: list[list[int]], head_OE: torch.Tensor) -> torch.Tensor:
        """Return the outputs (B, O), in float32, of a head without bias at the last token of each text."""


class LiveEngine(Protocol):
    """Makes engines for a model that is being trained."""

    def now(self, tokenizer: Any = None, ends: Collection[int] = ()) -> SharingEngine:
        """Return an engine for use before the next change of weights or adapters.

        ``ends`` are tokens that end a text. The tokenizer is needed where stop strings do too.
        """


def open_engine(
    model: Any,
    tokenizer: Any,
    ends: set[int],
    *,
    fixed: bool,
    int8: torch.dtype | None = None,
) -> SharingEngine | None:
    """Return an engine for a causal language model of transformers; None where only its own ``generate`` runs it.

    A classifier of such a model gets one too, for ``outputs`` only.

    ``fixed``: its weights will not change. On an x86 processor they are then taken over, and ``model`` cannot be used
    afterwards. ``int8``, a result of ``int8_dtype``, is what all is computed in beside weights in 8 bits; None is then
    returned for a model that cannot run so.
    """
    from constitutional_ai.engine import architectures
    from constitutional_ai.engine.attention import Forward, TransformersForward
    from constitutional_ai.engine.cpu import decoder
    from constitutional_ai.engine.sequence_engine import SequenceEngine

    if not architectures.supports(model):
        return None
    forward: Forward
    if int8:
        if not decoder.supports_int8(model):
            return None
        forward = decoder.Decoder(model, int8=int8)
    elif fixed and decoder.supports(model):
        forward = decoder.Decoder(model)
    else:
        forward = TransformersForward(model)
    return SequenceEngine(forward, tokenizer, ends, keep=fixed)


def open_live_engine(model: Any) -> LiveEngine | None:
    """Return an engine for a model that is being trained; None where the architecture is not supported.

    ``model`` is one of transformers, or the base of a peft model with its adapters in place.
    """
    from constitutional_ai import machine
    from constitutional_ai.engine import architectures
    from constitutional_ai.engine.live_engine import WeightsOfNow

    return WeightsOfNow(model, machine.best_dtype()) if architectures.supports(model) else None


def supports_config(config: Any) -> bool:
    """Return whether ``open_engine`` gives an engine for plain models of this configuration."""
    from constitutional_ai.engine import architectures

    return architectures.supports_config(config)


def round_to_int8(weight_FE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights rounded to whole numbers (F, E) from -127 to 127, and the scales (F) that undo it.

    Raises ModelError for inf and NaN.
    """
    from constitutional_ai.engine.cpu.int8 import round_weights

    return round_weights(weight_FE)


def int8_dtype(dtype: torch.dtype | None = None) -> torch.dtype | None:
    """Return what is computed in beside weights in 8 bits: ``dtype``, or the best here. None without kernels for it.

    They take Linux, gcc, and a processor with AVX-512 VNNI or AMX.
    """
    import torch

    from constitutional_ai import machine
    from constitutional_ai.engine.cpu.build import load_kernels

    for tried in (dtype,) if dtype else (machine.best_dtype(), torch.float32):
        if (kernels := load_kernels(tried)) and kernels.supports_int8:
            return tried
    return None
