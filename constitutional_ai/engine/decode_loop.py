"""Decode: one token after another for all sequences of a batch; those that end make room.

Axes: B sequences, C columns of the KV cache, V vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from constitutional_ai.engine.attention import Forward, KeysValues
from constitutional_ai.engine.kv_cache import KVCache
from constitutional_ai.engine.sampling import Decoding, Sampler, StoppingCriteria


@dataclass
class RunningSequence:
    """A prompt and what was generated for it so far."""

    index: int
    """Its place among the prompts of the batch."""
    padding: int
    """Columns of the KV cache before its first own token."""
    tokens: list[int]
    """All tokens, those of the shared prefix included."""
    prompt_len: int

    @property
    def completion(self) -> list[int]:
        """Token ids after the prompt."""
        return self.tokens[self.prompt_len :]


class RunningBatch:
    """The sequences that still run, in the order in which they lie in the KV cache.

    ``column`` is where all of them write their next token: prompts end in the same column.
    """

    def __init__(self, cache: KVCache, column: int, finished: Callable[[RunningSequence, int], None]) -> None:
        """``finished`` is called with each sequence that ends, and its place in the KV cache."""
        self.cache, self.column, self._finished = cache, column, finished
        self.running: list[RunningSequence] = []

    def add(self, sequence: RunningSequence) -> int:
        """Append a sequence behind the others and return its place in the KV cache."""
        self.running.append(sequence)
        return len(self.running) - 1

    def drop(self, ended: Sequence[bool]) -> None:
        """Remove the sequences that ended; the last ones that run take their places."""
        live = ended.count(False)
        for place, sequence in enumerate(self.running):
            if ended[place]:
                self._finished(sequence, place)
        holes = [i for i in range(live) if ended[i]]
        movers = [i for i in range(live, len(ended)) if not ended[i]]
        if holes:
            self.cache.move(holes, movers)
        for hole, mover in zip(holes, movers, strict=True):
            self.running[hole] = self.running[mover]
        del self.running[live:]


def decode(
    model: Forward,
    batch: RunningBatch,
    logits_BV: torch.Tensor,
    decoding: Decoding,
    stopping: StoppingCriteria,
    prefix: KeysValues | None,
    cancelled: threading.Event,
) -> None:
    """Complete every sequence, up to the end token.

    ``logits_BV`` are those after each prompt's last token. Once ``cancelled`` is set, completions stop short.
    """
    sampler = Sampler(decoding.seeds, decoding.temperature, decoding.max_tokens)
    for step in range(decoding.max_tokens):
        tokens = sampler(logits_BV, [sequence.index for sequence in batch.running], step).tolist()
        ended = []
        for sequence, token in zip(batch.running, tokens, strict=True):
            sequence.tokens.append(token)
            ended.append(step + 1 == decoding.max_tokens or stopping(sequence.completion))
        batch.drop(ended)
        if cancelled.is_set() or not batch.running:
            return
        logits_BV = _forward(model, batch, prefix)


def _forward(model: Forward, batch: RunningBatch, prefix: KeysValues | None) -> torch.Tensor:
    """Return the logits (B, V) after each running sequence's newest token, which is written into the cache."""
    running, end, device = batch.running, batch.column + 1, model.device
    tokens_B1 = torch.tensor([sequence.tokens[-1:] for sequence in running], device=device)
    positions_B1 = torch.tensor([[len(sequence.tokens) - 1] for sequence in running], device=device)
    padding = [sequence.padding for sequence in running]
    masked_BC = torch.arange(end, device=device) < torch.tensor(padding, device=device)[:, None]
    mask_BC = torch.zeros(masked_BC.shape, dtype=model.dtype, device=device).masked_fill(
        masked_BC, float("-inf")
    )
    cache = batch.cache.at(slice(0, len(running)), batch.column, slice(end), padding)
    batch.column = end
    return model(tokens_B1, positions_B1, mask_BC[:, None, None], cache, prefix, 1)[:, 0]
