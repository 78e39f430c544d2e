"""Probabilities of continuations. What contexts share is read once, and so is a context for all its continuations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from constitutional_ai.engine.attention import KeysValues
from constitutional_ai.engine.decode_loop import RowCache
from constitutional_ai.engine.kept_rows import NOTHING
from constitutional_ai.engine.pieces import Read, branches, pieces

if TYPE_CHECKING:
    from constitutional_ai.engine.row_engine import SharedEngine

KNOWN = 8
"""Times as many tokens as are read at once may be known of the rows that read them."""


def scored(
    engine: SharedEngine, contexts: list[list[int]], continuations: list[list[list[int]]]
) -> list[list[float]]:
    """Natural log-probability of every continuation of each context."""
    begun, shared = engine.beginning(contexts)
    taken = branches(contexts, [begun] * len(contexts))
    starts = [taken[i][1] if i in taken else begun for i in range(len(contexts))]
    each = zip(contexts, starts, continuations, strict=True)
    asked = [Read.of(context[start:], start, ends) for context, start, ends in each]
    shares: dict[int, int] = {}
    for leader, length in taken.values():
        shares[leader] = max(length - begun, shares.get(leader, 0))
    of_leaders: dict[int, torch.Tensor] = {}
    scores: dict[int, list[float]] = {}
    # What is known takes no time, but memory.
    sizes = [max(len(r.tokens), len(c) // KNOWN) for r, c in zip(asked, contexts, strict=True)]
    for firsts in (True, False):
        for piece in pieces({i: size for i, size in enumerate(sizes) if (i not in taken) == firsts}):
            known = [
                of_leaders[taken[i][0]][..., : starts[i] - begun, :] if i in taken else NOTHING for i in piece
            ]
            keep = 1 + max(extra(continuations[i]) for i in piece)
            reads = [asked[i] for i in piece]
            logits, cache = _read(engine, reads, known, shared, keep, any(i in shares for i in piece))
            for place, i in enumerate(piece):
                scores[i] = _sums(logits[place, -1 - extra(continuations[i]) :], continuations[i])
                if i in shares and cache:
                    column = cache.kv[0][0].shape[2] - len(asked[i].tokens)
                    of_leaders[i] = cache.copy(place, slice(column, column + shares[i]))
    return [scores[i] for i in range(len(contexts))]


def _read(
    engine: SharedEngine,
    reads: list[Read],
    known: list[torch.Tensor],
    shared: KeysValues | None,
    keep: int,
    cached: bool,
) -> tuple[torch.Tensor, RowCache | None]:
    """Logits (B, ``keep``, vocabulary) of rows of which something is known, and where all of them lies then."""
    lengths = [of_row.shape[-2] for of_row in known]
    most, width = max(lengths), max(len(read.tokens) for read in reads)
    if not (most or cached):
        return engine.read(reads, shared, keep=keep, known=lengths), None
    cache = RowCache(engine.model, len(reads), most + width)
    for place, of_row in enumerate(known):
        cache.fill(place, most - lengths[place], of_row)
    cache.at(slice(len(reads)), [most] * len(reads), slice(most + width))
    return engine.read(reads, shared, cache, keep=keep, known=lengths), cache


def extra(continuations: Sequence[list[int]]) -> int:
    """Tokens that are read beside the context: a continuation's last one predicts nothing."""
    return sum(len(tokens) - 1 for tokens in continuations)


def _sums(logits_XV: torch.Tensor, continuations: Sequence[list[int]]) -> list[float]:
    """From the logits after the context's last token, then after all but the last of each continuation's."""
    places, wanted, at = [], [], 0
    for tokens in continuations:
        places.append([0, *range(at + 1, at + len(tokens))])
        wanted.append(tokens)
        at += len(tokens) - 1
    logps = logits_XV.float().log_softmax(-1)
    return [float(logps[p, w].sum()) for p, w in zip(places, wanted, strict=True)]
