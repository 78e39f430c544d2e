"""Answers batches of rows of tokens, sharing what they begin with.

Prompts are read in pieces of rows of like length, so that neither padding nor memory grows with the batch.
Axes: B rows of a piece, T their tokens, left-padded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from cai.models.attention import Forward, KeysValues
from cai.models.batching import common
from cai.models.decoding import AHEAD, Decoding, Ending, Row, RowCache, Rows, decode
from cai.models.kept_rows import Kept, KeptRows, room
from cai.models.memory import huge_pages
from cai.models.shared_prefix import LEAST, Prefix, Prefixes

PIECE = 2048
"""Tokens read at once, padding included: enough for the matrix products, and their results stay in the caches."""


class SharedEngine:
    """Not for two threads at once."""

    shares = True

    def __init__(self, forward: Forward, tokenizer: Any, ends: set[int], *, keep: bool = True) -> None:
        """``keep`` beginnings and rows from batch to batch; not where weights may change in between."""
        self._model, self._tokenizer, self._ends = forward, tokenizer, ends
        self._prefixes = Prefixes() if keep else Prefixes(0)
        self._kept = KeptRows(room(forward.device) if keep else 0)

    def generate(self, rows: list[list[int]], how: Decoding, cancelled: threading.Event) -> list[list[int]]:
        """What each row says, its end included."""
        with torch.inference_mode():
            begun, shared = self._beginning(rows)
            # The last token is read in any case: it is the one that is answered.
            known = [self._kept.longest(row[:-1], begun) for row in rows]
            unread = [len(row) - begun - of_row.shape[-2] for row, of_row in zip(rows, known, strict=True)]
            width = max(map(len, rows)) - begun
            cache = RowCache(self._model, len(rows), width + how.max_tokens + AHEAD)
            logits: list[torch.Tensor] = []
            live: list[Row] = []
            for piece in _pieces(unread):
                if cancelled.is_set():
                    return [[] for _ in rows]
                for i in piece:
                    padding = width + begun - len(rows[i])
                    cache.fill(len(live), padding, known[i])
                    live.append(Row(i, padding, list(rows[i]), len(rows[i]), width))
                count, end = unread[piece[0]], len(live)
                logits.append(self._read_on(live[end - len(piece) :], count, begun, shared, cache, end))
            ending = Ending(self._tokenizer, self._ends, how.stop)

            def keep(row: Row, place: int) -> None:
                if self._kept.limit:
                    kv = cache.copy(place, slice(row.padding, row.column))
                    self._kept.keep(Kept(row.tokens[: begun + kv.shape[-2]], begun, kv))

            going_on = Rows(cache, live, keep)
            return decode(self._model, going_on, torch.cat(logits), how, ending, shared, cancelled)

    def _read_on(
        self, rows: list[Row], count: int, begun: int, shared: KeysValues | None, cache: RowCache, end: int
    ) -> torch.Tensor:
        """Logits (B, V) after the last token of rows, of which the last ``count`` tokens are read.

        Where fewer are unknown, known ones are read again: padding would be written over them. ``end``: of these rows
        in the cache.
        """
        width, reads = rows[0].column, [row.tokens[max(begun, row.begun - count) :] for row in rows]
        first = min(row.padding for row in rows)
        cache.at(slice(end - len(rows), end), [width - count] * len(rows), slice(first, width))
        mask = _mask_behind([row.padding - first for row in rows], count, width - first, self._model)
        asked = [_Read.of(read, row.begun - len(read)) for read, row in zip(reads, rows, strict=True)]
        return self._read(asked, shared, cache, mask=mask)[:, -1]

    def score(self, contexts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Natural log-probability of every continuation of each context."""
        with torch.inference_mode():
            begun, shared = self._beginning(contexts)
            pairs = zip(contexts, continuations, strict=True)
            own = [_Read.of(context[begun:], begun, ends) for context, ends in pairs]
            scores: dict[int, list[float]] = {}
            for piece in _pieces([len(read.tokens) for read in own]):
                keep = 1 + max(_extra(continuations[i]) for i in piece)
                asked = [own[i] for i in piece]
                logits = self._read(asked, shared, keep=keep, mask=_mask(asked, self._model))
                for i, of_row in zip(piece, logits, strict=True):
                    scores[i] = _scores(of_row[-1 - _extra(continuations[i]) :], continuations[i])
            return [scores[i] for i in range(len(contexts))]

    def tokens_to_score(self, context: list[int], continuations: Sequence[list[int]]) -> int:
        """They lie one after another behind the context, which is read once."""
        return len(context) + _extra(continuations)

    def _beginning(self, rows: list[list[int]]) -> tuple[int, KeysValues | None]:
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
        cache = RowCache(self._model, 1, len(tokens)).at(slice(0, 1), [0], slice(len(tokens)))
        begun = len(known.tokens) if known else 0
        self._read([_Read.of(tokens, begun)], known.kv if known else None, cache, keep=0)
        return known.with_more(tokens, cache.kv) if known else Prefix(tokens, cache.kv)

    def _read(
        self,
        rows: list[_Read],
        shared: KeysValues | None,
        cache: RowCache | None = None,
        keep: int = 1,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B, ``keep``, vocabulary) after the last tokens. Without a mask each sees all before it."""
        huge_pages()
        width, device = max(len(row.tokens) for row in rows), self._model.device
        tokens, positions = (
            torch.tensor([[0] * (width - len(row.tokens)) + row[field] for row in rows], device=device)
            for field in (0, 1)
        )
        return self._model(tokens, positions, mask, cache, shared, keep)


class _Read(NamedTuple):
    """A row as it is read. Continuations lie one after another behind the context, and none sees another."""

    tokens: list[int]
    positions: list[int]
    segments: list[int]
    """0 of the context, 1, 2, … of the continuations."""

    @staticmethod
    def of(context: list[int], begun: int, continuations: Sequence[list[int]] = ()) -> _Read:
        """After a beginning of ``begun`` tokens. A continuation's last token predicts nothing."""
        end = begun + len(context)
        read = _Read(list(context), list(range(begun, end)), [0] * len(context))
        for number, tokens in enumerate(continuations, start=1):
            read.tokens.extend(tokens[:-1])
            read.positions.extend(range(end, end + len(tokens) - 1))
            read.segments.extend([number] * (len(tokens) - 1))
        return read


def _mask(rows: list[_Read], model: Forward) -> torch.Tensor:
    """For rows with continuations, added to scores (B, 1, T, T). Padding sees itself, so that it holds numbers."""
    width = max(len(row.tokens) for row in rows)
    segments_BT = torch.tensor(
        [[-1] * (width - len(row.segments)) + row.segments for row in rows], device=model.device
    )
    asks_BT1, asked_B1T = segments_BT[:, :, None], segments_BT[:, None]
    seen_BTT = ((asked_B1T == 0) | (asked_B1T == asks_BT1)) & (asked_B1T >= 0)
    seen_BTT &= torch.ones((width, width), dtype=torch.bool, device=model.device).tril()
    return _hidden(seen_BTT | torch.eye(width, dtype=torch.bool, device=model.device), model)


def _mask_behind(padding: list[int], count: int, width: int, model: Forward) -> torch.Tensor:
    """For the last ``count`` of ``width`` columns, of which a row's first are padding (B, 1, T, L)."""
    column_L = torch.arange(width, device=model.device)
    own_B1L = column_L >= torch.tensor(padding, device=model.device)[:, None, None]
    at_T1 = column_L[-count:, None]
    return _hidden((own_B1L & (column_L <= at_T1)) | (column_L == at_T1), model)


def _hidden(seen: torch.Tensor, model: Forward) -> torch.Tensor:
    zeros = torch.zeros(seen.shape, dtype=model.dtype, device=model.device)
    return zeros.masked_fill(~seen, float("-inf"))[:, None]


def _pieces(lengths: list[int]) -> Iterator[list[int]]:
    """Numbers of rows, longest first, in pieces that hold ``PIECE`` tokens at most where a row allows."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        count = max(1, PIECE // lengths[order[0]])
        yield order[:count]
        order = order[count:]


def _extra(continuations: Sequence[list[int]]) -> int:
    return sum(len(tokens) - 1 for tokens in continuations)


def _scores(logits_XV: torch.Tensor, continuations: Sequence[list[int]]) -> list[float]:
    """From the logits after the context's last token, then after all but the last of each continuation's."""
    places, wanted, at = [], [], 0
    for tokens in continuations:
        places.append([0, *range(at + 1, at + len(tokens))])
        wanted.append(tokens)
        at += len(tokens) - 1
    logps = logits_XV.float().log_softmax(-1)
    return [float(logps[p, w].sum()) for p, w in zip(places, wanted, strict=True)]
