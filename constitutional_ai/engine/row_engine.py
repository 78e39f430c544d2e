"""Answers batches of rows of tokens, reading once what they share.

What all rows of a batch begin with is kept once, and all attend to it. Of what some rows share beyond that (several
answers to one prompt, one principle in both orders) the first of them is read, and the others take it over.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from constitutional_ai.engine.attention import Forward, KeysValues
from constitutional_ai.engine.cpu.memory import huge_pages
from constitutional_ai.engine.decode_loop import Arrivals, Decoding, Ending, RowCache
from constitutional_ai.engine.generate_rows import Generating
from constitutional_ai.engine.kept_rows import KeptRows, room
from constitutional_ai.engine.pieces import Read, common
from constitutional_ai.engine.prefixes import LEAST, Prefix, Prefixes
from constitutional_ai.engine.score_rows import extra, scored
from constitutional_ai.engine.seen import Seen


class SharedEngine:
    """Not for two threads at once."""

    shares = True

    def __init__(self, forward: Forward, tokenizer: Any, ends: set[int], *, keep: bool = True) -> None:
        """``keep`` beginnings and rows from batch to batch; not where weights may change in between."""
        self.model, self._tokenizer, self._ends = forward, tokenizer, ends
        self._prefixes = Prefixes() if keep else Prefixes(0)
        self.kept = KeptRows(room(forward.device) if keep else 0)

    def forget(self) -> None:
        """As if nothing had been read yet."""
        self._prefixes, self.kept = Prefixes(self._prefixes.limit), KeptRows(self.kept.limit)

    def generate(
        self,
        rows: list[list[int]],
        how: Decoding,
        cancelled: threading.Event,
        arrivals: Arrivals | None = None,
    ) -> list[list[int]]:
        """What each row says, its end included: of these, and of those that arrive, in their order."""
        with torch.inference_mode():
            ending = Ending(self._tokenizer, self._ends, how.stop)
            return Generating(self, rows, how, cancelled, arrivals).said(ending)

    def score(self, contexts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Natural log-probability of every continuation of each context."""
        with torch.inference_mode():
            return scored(self, contexts, continuations)

    def tokens_to_score(self, context: list[int], continuations: Sequence[list[int]]) -> int:
        """They lie one after another behind the context, which is read once."""
        return len(context) + extra(continuations)

    def beginning(self, rows: list[list[int]]) -> tuple[int, KeysValues | None]:
        """How many tokens all rows begin with, and the keys and values of these. A token of each row's own is left."""
        least, most = min(rows), max(rows)  # if these two begin alike, so does all that is sorted between them
        length = min(common(least, most), min(map(len, rows)) - 1)
        if length < LEAST:
            return 0, None
        known = self._prefixes.longest(least[:length])
        missing = least[len(known.tokens) if known else 0 : length]
        if missing:
            known = self._extended(known, missing)
            self._prefixes.keep(known)
        assert known is not None
        return length, known.kv

    def _extended(self, known: Prefix | None, tokens: list[int]) -> Prefix:
        cache = RowCache(self.model, 1, len(tokens)).at(slice(0, 1), [0], slice(len(tokens)))
        begun = len(known.tokens) if known else 0
        self.read([Read.of(tokens, begun)], known.kv if known else None, cache, keep=0)
        return known.with_more(tokens, cache.kv) if known else Prefix(tokens, cache.kv)

    def read(
        self,
        rows: list[Read],
        shared: KeysValues | None,
        cache: RowCache | None = None,
        keep: int = 1,
        known: list[int] | None = None,
    ) -> torch.Tensor:
        """Logits (B, ``keep``, vocabulary) after the last tokens. Of each row ``known`` ones are in the cache."""
        huge_pages()
        seen = Seen(known or [0] * len(rows), [row.segments for row in rows])
        width, device = max(len(row.tokens) for row in rows), self.model.device
        tokens, positions = (
            torch.tensor([[0] * (width - len(row.tokens)) + row[field] for row in rows], device=device)
            for field in (0, 1)
        )
        return self.model(tokens, positions, seen, cache, shared, keep)
