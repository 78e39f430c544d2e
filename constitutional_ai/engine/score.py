"""Log-probabilities of continuations. A shared prefix is prefilled once, and so is a context for its continuations."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from constitutional_ai.engine.attention import KeysValues
from constitutional_ai.engine.kept_sequences import NOTHING
from constitutional_ai.engine.kv_cache import KVCache
from constitutional_ai.engine.prefill_chunks import PrefillInput, chunks, shared_subprefixes
from constitutional_ai.engine.reader import Reader
from constitutional_ai.engine.sampling import token_logps

KNOWN_PER_NEW = 8
"""A chunk may hold this many times as many known tokens as new ones: known tokens take memory, but no time."""


def score(reader: Reader, contexts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
    """Return the natural log-probability of every continuation of each context."""
    logps = logps_of_tokens(reader, contexts, continuations)
    return [[float(tokens_N.sum()) for tokens_N in of_context] for of_context in logps]


def logps_of_tokens(
    reader: Reader, contexts: list[list[int]], continuations: list[list[list[int]]], temperature: float = 1.0
) -> list[list[torch.Tensor]]:
    """Return the natural log-probability of each token of every continuation of each context, at a temperature."""
    prefix_len, prefix = reader.shared_prefix(contexts)
    shared = shared_subprefixes(contexts, [prefix_len] * len(contexts))
    starts = [shared[i][1] if i in shared else prefix_len for i in range(len(contexts))]
    each = zip(contexts, starts, continuations, strict=True)
    inputs = [PrefillInput.of(context[start:], start, ends) for context, start, ends in each]
    copied_lengths: dict[int, int] = {}  # of each leader, the tokens that others copy
    for leader, length in shared.values():
        copied_lengths[leader] = max(length - prefix_len, copied_lengths.get(leader, 0))
    leader_kv: dict[int, torch.Tensor] = {}
    logps: dict[int, list[torch.Tensor]] = {}
    sizes = [max(len(new.tokens), len(c) // KNOWN_PER_NEW) for new, c in zip(inputs, contexts, strict=True)]
    for leaders in (True, False):
        for chunk in chunks({i: size for i, size in enumerate(sizes) if (i not in shared) == leaders}):
            known = [
                leader_kv[shared[i][0]][..., : starts[i] - prefix_len, :] if i in shared else NOTHING
                for i in chunk
            ]
            keep = 1 + max(extra_tokens(continuations[i]) for i in chunk)
            new = [inputs[i] for i in chunk]
            logits, cache = _prefill(reader, new, known, prefix, keep, any(i in copied_lengths for i in chunk))
            for place, i in enumerate(chunk):
                logits_XV = logits[place, -1 - extra_tokens(continuations[i]) :]
                logps[i] = _logps(logits_XV, continuations[i], temperature)
                if i in copied_lengths:
                    column = cache.all.shape[-2] - len(inputs[i].tokens)
                    leader_kv[i] = cache.copy(place, slice(column, column + copied_lengths[i]))
    return [logps[i] for i in range(len(contexts))]


def _prefill(
    reader: Reader,
    inputs: list[PrefillInput],
    known: list[torch.Tensor],
    prefix: KeysValues | None,
    keep: int,
    cached: bool,
) -> tuple[torch.Tensor, KVCache]:
    """Return logits (B, ``keep``, V), and the KV cache: of the last layer only, unless it is ``cached`` or known."""
    lengths = [kv.shape[-2] for kv in known]
    most, width = max(lengths), max(len(each.tokens) for each in inputs)
    cache = KVCache(reader.model, len(inputs), most + width, layers=None if most or cached else 1)
    for place, kv in enumerate(known):
        cache.fill(place, most - lengths[place], kv)
    cache.at(slice(0, len(inputs)), most, slice(most + width))
    return reader.prefill(inputs, prefix, cache, lengths, keep), cache


def extra_tokens(continuations: Sequence[list[int]]) -> int:
    """Return the number of tokens computed beside the context: a continuation's last one predicts nothing."""
    return sum(len(tokens) - 1 for tokens in continuations)


def _logps(
    logits_XV: torch.Tensor, continuations: Sequence[list[int]], temperature: float
) -> list[torch.Tensor]:
    """Return log-probabilities; the logits follow the context's last token, then all but each continuation's last."""
    rows, at = [], 0
    for tokens in continuations:
        rows += [0, *range(at + 1, at + len(tokens))]
        at += len(tokens) - 1
    tokens_N = torch.tensor([token for tokens in continuations for token in tokens], device=logits_XV.device)
    logps_N = token_logps(logits_XV[rows], tokens_N, temperature)
    return list(torch.split(logps_N, [len(tokens) for tokens in continuations]))
