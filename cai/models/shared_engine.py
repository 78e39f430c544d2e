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
from cai.models.memory import huge_pages
from cai.models.shared_prefix import LEAST, Prefix, Prefixes

PIECE = 2048
"""Tokens read at once, padding included: enough for the matrix products, and their results stay in the caches."""


class SharedEngine:
    """Not for two threads at once."""

    shares = True

    def __init__(self, forward: Forward, tokenizer: Any, ends: set[int], *, keep: bool = True) -> None:
        """``keep`` beginnings from batch to batch; not where weights may change in between."""
        self._model, self._tokenizer, self._ends = forward, tokenizer, ends
        self._prefixes = Prefixes() if keep else Prefixes(0)

    def generate(self, rows: list[list[int]], how: Decoding, cancelled: threading.Event) -> list[list[int]]:
        """What each row says, its end included."""
        with torch.inference_mode():
            begun, shared = self._beginning(rows)
            own = [_Read.of(row[begun:], begun) for row in rows]
            width = max(len(read.tokens) for read in own)
            cache = RowCache(self._model, len(rows), width + how.max_tokens + AHEAD)
            logits: list[torch.Tensor] = []
            live: list[Row] = []
            for piece in _pieces(own):
                if cancelled.is_set():
                    return [[] for _ in rows]
                columns = slice(width - len(own[piece[0]].tokens), width)
                cache.at(slice(len(live), len(live) + len(piece)), [columns.start] * len(piece), columns)
                logits.append(self._read([own[i] for i in piece], shared, cache)[:, -1])
                live += [Row(i, width - len(own[i].tokens), list(rows[i]), len(rows[i]), width) for i in piece]
            ending = Ending(self._tokenizer, self._ends, how.stop)
            return decode(self._model, Rows(cache, live), torch.cat(logits), how, ending, shared, cancelled)

    def score(self, contexts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Natural log-probability of every continuation of each context."""
        with torch.inference_mode():
            begun, shared = self._beginning(contexts)
            pairs = zip(contexts, continuations, strict=True)
            own = [_Read.of(context[begun:], begun, ends) for context, ends in pairs]
            scores: dict[int, list[float]] = {}
            for piece in _pieces(own):
                keep = 1 + max(_extra(continuations[i]) for i in piece)
                logits = self._read([own[i] for i in piece], shared, keep=keep)
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
        self._read([_Read.of(tokens, begun)], known.kv if known else None, cache, keep=0, masked=False)
        return known.with_more(tokens, cache.kv) if known else Prefix(tokens, cache.kv)

    def _read(
        self,
        rows: list[_Read],
        shared: KeysValues | None,
        cache: RowCache | None = None,
        keep: int = 1,
        masked: bool = True,
    ) -> torch.Tensor:
        """Logits (B, ``keep``, vocabulary) after the last tokens."""
        huge_pages()
        width, device = max(len(row.tokens) for row in rows), self._model.device
        tokens, positions, segments = (
            torch.tensor([[fill] * (width - len(row.tokens)) + row[field] for row in rows], device=device)
            for field, fill in enumerate((0, 0, -1))
        )
        mask = _mask(segments, self._model.dtype) if masked else None
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


def _mask(segments_BT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Added to scores (B, 1, T, T). Padding sees itself, so that it holds numbers."""
    asks_BT1, asked_B1T = segments_BT[:, :, None], segments_BT[:, None]
    square = (segments_BT.shape[1],) * 2
    seen = ((asked_B1T == 0) | (asked_B1T == asks_BT1)) & (asked_B1T >= 0)
    seen &= torch.ones(square, dtype=torch.bool, device=seen.device).tril()
    seen |= torch.eye(square[0], dtype=torch.bool, device=seen.device)
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, float("-inf"))[:, None]


def _pieces(rows: list[_Read]) -> Iterator[list[int]]:
    """Numbers of the rows, longest first, in pieces that hold ``PIECE`` tokens at most where a row allows."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens))
    while order:
        count = max(1, PIECE // len(rows[order[0]].tokens))
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
