"""One batch of rows: read, decoded, and others read in between as they arrive."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from constitutional_ai.engine.decode_loop import Arrivals, Decoding, Ending, Row, RowCache, Rows, decode
from constitutional_ai.engine.kept_rows import Kept
from constitutional_ai.engine.pieces import Read, branches, pieces
from constitutional_ai.engine.prompt_lookup import AHEAD, Copying

if TYPE_CHECKING:
    from constitutional_ai.engine.row_engine import SharedEngine


class Cancelled(Exception):
    """Nobody waits for the batch any more."""


class Generating:
    def __init__(
        self,
        engine: SharedEngine,
        rows: list[list[int]],
        how: Decoding,
        cancelled: threading.Event,
        arrivals: Arrivals | None,
    ) -> None:
        self._engine, self._rows, self._how = engine, rows, how
        self._cancelled, self._arrivals = cancelled, arrivals
        self._begun, self._shared = engine.beginning(rows)
        self._width = max(map(len, rows)) - self._begun
        """Columns of the cache that hold what rows were asked with: all end there."""
        self._cache = RowCache(engine.model, len(rows), self._width + how.max_tokens + AHEAD)
        self._going_on = Rows(self._cache, self._ended)

    def said(self, ending: Ending) -> list[list[int]]:
        """What each row says, its end included, of those that arrived too."""
        copying = Copying(self._rows[0][: self._begun])
        try:
            logits = self._read(self._rows)
            return decode(
                self._engine.model,
                self._going_on,
                logits,
                self._how,
                ending,
                self._shared,
                self._cancelled,
                copying,
                self._joining,
            )
        except Cancelled:
            return [[] for _ in self._rows]

    def _ended(self, row: Row, place: int) -> None:
        if self._engine.kept.limit:
            kv = self._cache.copy(place, slice(row.padding, row.column))
            tokens = row.tokens[: self._begun + kv.shape[-2]]
            self._engine.kept.keep(Kept(tokens, self._begun, kv))
        if self._arrivals:
            self._arrivals.said(row.number, row.said)

    def _joining(self) -> tuple[torch.Tensor, list[int]] | None:
        new = self._arrivals.more(self._rows[0][: self._begun]) if self._arrivals else []
        return (self._read([tokens for tokens, _ in new]), [seed for _, seed in new]) if new else None

    def _read(self, rows: Sequence[list[int]]) -> torch.Tensor:
        """Logits (R, V) after the last token of rows that go on from here, in the order in which they lie."""
        # The last token is read in any case: it is the one that is answered.
        kept = [self._engine.kept.longest(row[:-1], self._begun) for row in rows]
        known = [self._begun + of_row.shape[-2] for of_row in kept]
        taken = branches(rows, known)
        unread = {i: len(row) - (taken[i][1] if i in taken else known[i]) for i, row in enumerate(rows)}
        before, read, logits = self._going_on.count, dict[int, Row](), []
        self._cache.reserve(len(self._going_on.rows) + len(rows))
        for firsts in (True, False):
            for piece in pieces({i: count for i, count in unread.items() if (i not in taken) == firsts}):
                if self._cancelled.is_set():
                    raise Cancelled
                for i in piece:
                    row = read[i] = self._placed(before + i, rows[i])
                    kv = self._taken_over(read[taken[i][0]], taken[i][1]) if i in taken else kept[i]
                    self._cache.fill(len(self._going_on.rows) - 1, row.padding, kv)
                logits.append(self._read_on(len(piece), unread[piece[0]]))
        return torch.cat(logits)

    def _placed(self, number: int, tokens: list[int]) -> Row:
        row = Row(number, self._width + self._begun - len(tokens), list(tokens), len(tokens), self._width)
        self._going_on.add(row)
        return row

    def _taken_over(self, leader: Row, length: int) -> torch.Tensor:
        """Keys and values of its first ``length`` tokens but for those that all rows begin with."""
        columns = slice(leader.padding, leader.padding + length - self._begun)
        return self._cache.copy(self._going_on.rows.index(leader), columns)

    def _read_on(self, rows: int, count: int) -> torch.Tensor:
        """Logits (B, V) after the last token of the last ``rows``, of which the last ``count`` tokens are read.

        Where fewer are unknown, known ones are read again: where padding is read, it would be written over them.
        """
        piece, end = self._going_on.rows[-rows:], len(self._going_on.rows)
        reads = [row.tokens[max(self._begun, row.begun - count) :] for row in piece]
        first = min(row.padding for row in piece)
        columns = [self._width - count] * rows
        cache = self._cache.at(slice(end - rows, end), columns, slice(first, self._width))
        known = [max(0, self._width - count - row.padding) for row in piece]
        asked = [Read.of(read, row.begun - len(read)) for read, row in zip(reads, piece, strict=True)]
        return self._engine.read(asked, self._shared, cache, known=known)[:, -1]
