"""Generation for one batch of prompts: prefill, then one token after another for all; those that end make room."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from constitutional_ai.engine.kept_sequences import Kept
from constitutional_ai.engine.kv_cache import KVCache
from constitutional_ai.engine.prefill_chunks import PrefillInput, chunks, shared_subprefixes
from constitutional_ai.engine.reader import Reader
from constitutional_ai.engine.sampling import Decoding, Sampler, StoppingCriteria, token_logps


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
    logps: list[float] = field(default_factory=list)
    """Natural log-probability of each token of the completion at the sampling temperature, where they are wanted."""

    @property
    def completion(self) -> list[int]:
        """Token ids after the prompt."""
        return self.tokens[self.prompt_len :]


def generate(
    reader: Reader,
    prompts: list[list[int]],
    decoding: Decoding,
    stopping: StoppingCriteria,
    cancelled: threading.Event,
) -> list[RunningSequence]:
    """Complete each prompt. A completion has the end token.

    Once ``cancelled`` is set, completions stop short, or are empty.
    """
    batch = _Batch(reader, prompts, decoding.max_tokens)
    logits = batch.prefill(prompts, cancelled)
    if logits is None:
        return [RunningSequence(i, 0, prompt, len(prompt)) for i, prompt in enumerate(prompts)]
    sequences = sorted(batch.running, key=lambda sequence: sequence.index)
    batch.decode(logits, decoding, stopping, cancelled)
    return sequences


def last_outputs(reader: Reader, sequences: list[list[int]], head_OE: torch.Tensor) -> torch.Tensor:
    """Return the outputs (B, O) of a head at the last token of each sequence; what sequences share is computed once."""
    batch = _Batch(reader, sequences, 0, head_OE)
    outputs = batch.prefill(sequences, threading.Event())
    assert outputs is not None
    in_order = torch.empty_like(outputs)
    in_order[[sequence.index for sequence in batch.running]] = outputs
    return in_order


class _Batch:
    """The sequences that still run, in the order in which they lie in the KV cache.

    Prompts end in the same column there, so all sequences write their next token in the same one. Axes: B sequences, V
    vocabulary.
    """

    def __init__(
        self,
        reader: Reader,
        prompts: list[list[int]],
        max_tokens: int,
        head_OE: torch.Tensor | None = None,
    ) -> None:
        self._reader, self._head_OE = reader, head_OE
        self._prefix_len, self._prefix = reader.shared_prefix(prompts)
        self._end = max(map(len, prompts)) - self._prefix_len
        """The column of the KV cache behind the newest token of all sequences."""
        self._cache = KVCache(reader.model, len(prompts), self._end + max_tokens)
        self.running: list[RunningSequence] = []

    def prefill(self, prompts: list[list[int]], cancelled: threading.Event) -> torch.Tensor | None:
        """Return the logits (B, V) after each prompt's last token, in the order of the KV cache.

        None once ``cancelled`` is set between two chunks.
        """
        # A prompt's last token is computed in any case: its logits are wanted.
        kept = [self._reader.sessions.longest(prompt[:-1], self._prefix_len) for prompt in prompts]
        known = [self._prefix_len + kv.shape[-2] for kv in kept]
        shared = shared_subprefixes(prompts, known)
        missing = {
            i: len(prompt) - (shared[i][1] if i in shared else known[i]) for i, prompt in enumerate(prompts)
        }
        done, logits = dict[int, RunningSequence](), []
        for leaders in (True, False):
            for chunk in chunks({i: count for i, count in missing.items() if (i not in shared) == leaders}):
                if cancelled.is_set():
                    return None
                for i in chunk:
                    kv = self._shared_kv(done[shared[i][0]], shared[i][1]) if i in shared else kept[i]
                    done[i] = self._add(i, prompts[i], kv)
                logits.append(self._read(len(chunk), missing[chunk[0]]))
        return torch.cat(logits)

    def _add(self, index: int, prompt: list[int], kv: torch.Tensor) -> RunningSequence:
        padding = self._end + self._prefix_len - len(prompt)
        self._cache.fill(len(self.running), padding, kv)
        self.running.append(RunningSequence(index, padding, list(prompt), len(prompt)))
        return self.running[-1]

    def _shared_kv(self, leader: RunningSequence, length: int) -> torch.Tensor:
        """Return keys and values of the leader's first ``length`` tokens, without the prefix that all share."""
        columns = slice(leader.padding, leader.padding + length - self._prefix_len)
        return self._cache.copy(self.running.index(leader), columns)

    def _read(self, sequences: int, count: int) -> torch.Tensor:
        """Return the logits (B, V) of the last ``sequences``, whose last ``count`` tokens are computed.

        Where a sequence lacks fewer, known tokens are computed again: padding would be written over their keys.
        """
        read, live = self.running[-sequences:], len(self.running)
        column, first = self._end - count, min(s.padding for s in read)
        cache = self._cache.at(slice(live - sequences, live), column, slice(first, self._end))
        starts = [max(self._prefix_len, len(s.tokens) - count) for s in read]
        inputs = [PrefillInput.of(s.tokens[start:], start) for s, start in zip(read, starts, strict=True)]
        known, decoding = [max(0, column - s.padding) for s in read], bool(read[0].completion)
        head = self._head_OE
        return self._reader.prefill(inputs, self._prefix, cache, known, decoding=decoding, head_OE=head)[:, -1]

    def decode(
        self,
        logits_BV: torch.Tensor,
        decoding: Decoding,
        stopping: StoppingCriteria,
        cancelled: threading.Event,
    ) -> None:
        """Complete every sequence, up to the end token.

        ``logits_BV`` are those after each prompt's last token. Once ``cancelled`` is set, completions stop short.
        """
        sampler = Sampler(decoding.seeds, decoding.temperature, decoding.max_tokens)
        for step in range(decoding.max_tokens):
            tokens_B = sampler(logits_BV, [sequence.index for sequence in self.running], step)
            tokens, ended = tokens_B.tolist(), []
            if decoding.logps:
                self._note_logps(logits_BV, tokens_B, decoding.temperature)
            for sequence, token in zip(self.running, tokens, strict=True):
                sequence.tokens.append(token)
                if decoding.watch:
                    decoding.watch(sequence.index, sequence.completion)
                ended.append(step + 1 == decoding.max_tokens or stopping(sequence.completion))
            self._drop(ended)
            if cancelled.is_set() or not self.running:
                return
            self._end += 1
            logits_BV = self._read(len(self.running), 1)

    def _note_logps(self, logits_BV: torch.Tensor, tokens_B: torch.Tensor, temperature: float) -> None:
        logps_B = token_logps(logits_BV, tokens_B, temperature)
        for sequence, logp in zip(self.running, logps_B.tolist(), strict=True):
            sequence.logps.append(logp)

    def _drop(self, ended: Sequence[bool]) -> None:
        """Remove the sequences that ended; the last ones that run take their places."""
        live = ended.count(False)
        for place, sequence in enumerate(self.running):
            if ended[place] and self._reader.sessions.limit:
                kv = self._cache.copy(place, slice(sequence.padding, self._end))
                tokens = sequence.tokens[: self._prefix_len + kv.shape[-2]]
                self._reader.sessions.keep(Kept(tokens, self._prefix_len, kv))
        holes = [i for i in range(live) if ended[i]]
        movers = [i for i in range(live, len(ended)) if not ended[i]]
        if holes:
            self._cache.move(holes, movers)
        for hole, mover in zip(holes, movers, strict=True):
            self.running[hole] = self.running[mover]
        del self.running[live:]
