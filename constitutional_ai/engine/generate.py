"""Generation for one batch of prompts: prefill, then decode."""

from __future__ import annotations

import threading

import torch

from constitutional_ai.engine.decode_loop import RunningBatch, RunningSequence, decode
from constitutional_ai.engine.kept_sequences import Kept
from constitutional_ai.engine.kv_cache import KVCache
from constitutional_ai.engine.prefill_chunks import PrefillInput, chunks, shared_subprefixes
from constitutional_ai.engine.reader import Reader
from constitutional_ai.engine.sampling import Decoding, StoppingCriteria


class _Cancelled(Exception):
    """Nobody waits for the batch any more."""


def generate(
    reader: Reader,
    prompts: list[list[int]],
    decoding: Decoding,
    stopping: StoppingCriteria,
    cancelled: threading.Event,
) -> list[list[int]]:
    """Return the completion ids of each prompt, the end token included.

    Once ``cancelled`` is set, completions stop short, or are empty.
    """
    batch = _Batch(reader, prompts, decoding.max_tokens, cancelled)
    try:
        logits = batch.prefill()
    except _Cancelled:
        return [[] for _ in prompts]
    sequences = sorted(batch.running.running, key=lambda sequence: sequence.index)
    decode(reader.model, batch.running, logits, decoding, stopping, batch.prefix, cancelled)
    return [sequence.completion for sequence in sequences]


class _Batch:
    """The prompts of a batch in one KV cache, in which all of them end in the same column."""

    def __init__(
        self, reader: Reader, prompts: list[list[int]], max_tokens: int, cancelled: threading.Event
    ) -> None:
        self._reader, self._prompts, self._cancelled = reader, prompts, cancelled
        self._prefix_len, self.prefix = reader.shared_prefix(prompts)
        self._width = max(map(len, prompts)) - self._prefix_len
        """Columns of the KV cache that hold prompts."""
        self._cache = KVCache(reader.model, len(prompts), self._width + max_tokens)
        self.running = RunningBatch(self._cache, self._width, self._keep_session)

    def _keep_session(self, sequence: RunningSequence, place: int) -> None:
        if self._reader.sessions.limit:
            kv = self._cache.copy(place, slice(sequence.padding, self.running.column))
            tokens = sequence.tokens[: self._prefix_len + kv.shape[-2]]
            self._reader.sessions.keep(Kept(tokens, self._prefix_len, kv))

    def prefill(self) -> torch.Tensor:
        """Return the logits (B, V) after each prompt's last token, in the order of the KV cache.

        Raises _Cancelled between two chunks.
        """
        # A prompt's last token is computed in any case: its logits are wanted.
        kept = [self._reader.sessions.longest(prompt[:-1], self._prefix_len) for prompt in self._prompts]
        known = [self._prefix_len + kv.shape[-2] for kv in kept]
        shared = shared_subprefixes(self._prompts, known)
        missing = {
            i: len(prompt) - (shared[i][1] if i in shared else known[i])
            for i, prompt in enumerate(self._prompts)
        }
        done, logits = dict[int, RunningSequence](), []
        for leaders in (True, False):
            for chunk in chunks({i: count for i, count in missing.items() if (i not in shared) == leaders}):
                if self._cancelled.is_set():
                    raise _Cancelled
                for i in chunk:
                    kv = self._shared_kv(done[shared[i][0]], shared[i][1]) if i in shared else kept[i]
                    done[i] = self._place(i, kv)
                logits.append(self._prefill_last(len(chunk), missing[chunk[0]]))
        return torch.cat(logits)

    def _place(self, index: int, kv: torch.Tensor) -> RunningSequence:
        prompt = self._prompts[index]
        padding = self._width + self._prefix_len - len(prompt)
        sequence = RunningSequence(index, padding, list(prompt), len(prompt))
        self._cache.fill(self.running.add(sequence), padding, kv)
        return sequence

    def _shared_kv(self, leader: RunningSequence, length: int) -> torch.Tensor:
        """Return keys and values of the leader's first ``length`` tokens, without the prefix that all share."""
        columns = slice(leader.padding, leader.padding + length - self._prefix_len)
        return self._cache.copy(self.running.running.index(leader), columns)

    def _prefill_last(self, sequences: int, count: int) -> torch.Tensor:
        """Return the logits (B, V) of the last ``sequences``, whose last ``count`` tokens are prefilled.

        Where a sequence lacks fewer, known tokens are computed again: padding would be written over their keys.
        """
        chunk, end = self.running.running[-sequences:], len(self.running.running)
        suffixes = [s.tokens[max(self._prefix_len, s.prompt_len - count) :] for s in chunk]
        column, first = self._width - count, min(s.padding for s in chunk)
        cache = self._cache.at(slice(end - sequences, end), column, slice(first, self._width))
        known = [max(0, column - s.padding) for s in chunk]
        inputs = [
            PrefillInput.of(suffix, s.prompt_len - len(suffix))
            for suffix, s in zip(suffixes, chunk, strict=True)
        ]
        return self._reader.prefill(inputs, self.prefix, cache, known=known)[:, -1]
