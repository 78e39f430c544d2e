"""The engine that computes once what the sequences of a batch share.

The prefix of all sequences is kept once, and all attend to it. Where only some share more (several answers to one
prompt, one principle in both orders), the first of them is prefilled and the others copy its keys and values.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from constitutional_ai.engine.attention import Forward
from constitutional_ai.engine.generate import RunningSequence, generate, last_outputs
from constitutional_ai.engine.reader import Reader
from constitutional_ai.engine.sampling import Decoding, Sampled, StoppingCriteria
from constitutional_ai.engine.score import extra_tokens, logps_of_tokens, score


class SequenceEngine:
    """Answers batches of token ids with a model that ``architectures.supports``. Not for two threads at once."""

    shares = True

    def __init__(self, forward: Forward, tokenizer: Any, ends: set[int], *, keep: bool = True) -> None:
        """``keep`` prefixes and sessions from batch to batch; not where weights may change in between."""
        self.reader, self._tokenizer, self._ends = Reader(forward, keep=keep), tokenizer, ends

    def generate(
        self, prompts: list[list[int]], decoding: Decoding, cancelled: threading.Event
    ) -> list[list[int]]:
        return [sequence.completion for sequence in self._complete(prompts, decoding, cancelled)]

    def sample(self, prompts: list[list[int]], decoding: Decoding) -> list[Sampled]:
        """Complete each prompt, and tell the log-probabilities of what was drawn."""
        sequences = self._complete(prompts, decoding._replace(logps=True), threading.Event())
        return [Sampled(sequence.completion, sequence.logps) for sequence in sequences]

    def _complete(
        self, prompts: list[list[int]], decoding: Decoding, cancelled: threading.Event
    ) -> list[RunningSequence]:
        stopping = StoppingCriteria(self._tokenizer, self._ends, decoding.stop)
        with torch.inference_mode():
            return generate(self.reader, prompts, decoding, stopping, cancelled)

    def score(self, contexts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
        with torch.inference_mode():
            return score(self.reader, contexts, continuations)

    def logps(
        self, contexts: list[list[int]], continuations: list[list[list[int]]], temperature: float
    ) -> list[list[torch.Tensor]]:
        """Return the natural log-probability of each token of every continuation of each context; none is empty."""
        with torch.inference_mode():
            return logps_of_tokens(self.reader, contexts, continuations, temperature)

    def outputs(self, texts: list[list[int]], head_OE: torch.Tensor) -> torch.Tensor:
        """Return the outputs (B, O), in float32, of a head without bias at the last token of each text."""
        with torch.inference_mode():
            return last_outputs(self.reader, texts, head_OE)

    def tokens_to_score(self, context: list[int], continuations: Sequence[list[int]]) -> int:
        return len(context) + extra_tokens(continuations)

    def paths(self) -> dict[str, str]:
        return self.reader.model.paths()
