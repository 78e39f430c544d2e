"""Answers batches of rows of tokens, reading once what they share.

What all rows of a batch begin with is kept once, and all attend to it. Of what some rows share beyond that (several
answers to one prompt, one principle in both orders) the first of them is read, and the others take it over.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from cai.models.attention import Forward, KeysValues
from cai.models.batching import common
from cai.models.copying import AHEAD, Copying
from cai.models.decoding import Arrivals, Decoding, Ending, Row, RowCache, Rows, decode
from cai.models.kept_rows import NOTHING, Kept, KeptRows, room
from cai.models.memory import huge_pages
from cai.models.reading import Read, branches, mask_behind, mask_of, pieces
from cai.models.shared_prefix import LEAST, Prefix, Prefixes


class SharedEngine:
    """Not for two threads at once."""

    shares = True

    def __init__(self, forward: Forward, tokenizer: Any, ends: set[int], *, keep: bool = True) -> None:
        """``keep`` beginnings and rows from batch to batch; not where weights may change in between."""
        self._model, self._tokenizer, self._ends = forward, tokenizer, ends
        self._prefixes = Prefixes() if keep else Prefixes(0)
        self._kept = KeptRows(room(forward.device) if keep else 0)

    def generate(
        self,
        rows: list[list[int]],
        how: Decoding,
        cancelled: threading.Event,
        arrivals: Arrivals | None = None,
    ) -> list[list[int]]:
        """What each row says, its end included: of these, and of those that arrive, in their order."""
        with torch.inference_mode():
            begun, shared = self._beginning(rows)
            width = max(map(len, rows)) - begun
            cache = RowCache(self._model, len(rows), width + how.max_tokens + AHEAD)

            def ended(row: Row, place: int) -> None:
                if self._kept.limit:
                    kv = cache.copy(place, slice(row.padding, row.column))
                    self._kept.keep(Kept(row.tokens[: begun + kv.shape[-2]], begun, kv))
                if arrivals:
                    arrivals.said(row.number, row.said)

            going_on = Rows(cache, ended)

            def read(new: Sequence[list[int]]) -> torch.Tensor:
                return self._read_in(new, begun, shared, going_on, width)

            def joining() -> tuple[torch.Tensor, list[int]] | None:
                new = arrivals.more(rows[0][:begun]) if arrivals else []
                return (read([tokens for tokens, _ in new]), [seed for _, seed in new]) if new else None

            if cancelled.is_set():
                return [[] for _ in rows]
            ending = Ending(self._tokenizer, self._ends, how.stop)
            copying = Copying(rows[0][:begun])
            return decode(
                self._model, going_on, read(rows), how, ending, shared, cancelled, copying, joining
            )

    def _read_in(
        self,
        rows: Sequence[list[int]],
        begun: int,
        shared: KeysValues | None,
        going_on: Rows,
        width: int,
    ) -> torch.Tensor:
        """Logits (R, V) after the last token of rows that go on from here, in the order in which they lie."""
        # The last token is read in any case: it is the one that is answered.
        kept = [self._kept.longest(row[:-1], begun) for row in rows]
        taken = branches(rows, [begun + of_row.shape[-2] for of_row in kept])
        unread = {
            i: len(row) - (taken[i][1] if i in taken else begun + kept[i].shape[-2])
            for i, row in enumerate(rows)
        }
        cache, before, logits = going_on.cache, going_on.count, []
        cache.reserve(len(going_on.rows) + len(rows))
        at: dict[int, Row] = {}
        for firsts in (True, False):
            for piece in pieces({i: count for i, count in unread.items() if (i not in taken) == firsts}):
                for i in piece:
                    padding = width + begun - len(rows[i])
                    row = at[i] = Row(before + i, padding, list(rows[i]), len(rows[i]), width)
                    place = going_on.add(row)
                    if i in taken:
                        leader, length = taken[i]
                        known = slice(at[leader].padding, at[leader].padding + length - begun)
                        cache.fill(place, padding, cache.copy(going_on.rows.index(at[leader]), known))
                    else:
                        cache.fill(place, padding, kept[i])
                logits.append(self._read_on(going_on, len(piece), unread[piece[0]], begun, shared))
        return torch.cat(logits)

    def _read_on(
        self, going_on: Rows, rows: int, count: int, begun: int, shared: KeysValues | None
    ) -> torch.Tensor:
        """Logits (B, V) after the last token of the last ``rows``, of which the last ``count`` tokens are read.

        Where fewer are unknown, known ones are read again: padding would be written over them.
        """
        piece, end = going_on.rows[-rows:], len(going_on.rows)
        width, reads = piece[0].column, [row.tokens[max(begun, row.begun - count) :] for row in piece]
        first = min(row.padding for row in piece)
        cache = going_on.cache.at(slice(end - rows, end), [width - count] * rows, slice(first, width))
        mask = mask_behind([row.padding - first for row in piece], count, width - first, self._model)
        asked = [Read.of(read, row.begun - len(read)) for read, row in zip(reads, piece, strict=True)]
        return self._read(asked, shared, cache, mask=mask)[:, -1]

    def score(self, contexts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Natural log-probability of every continuation of each context."""
        with torch.inference_mode():
            begun, shared = self._beginning(contexts)
            taken = branches(contexts, [begun] * len(contexts))
            starts = [taken[i][1] if i in taken else begun for i in range(len(contexts))]
            asked = [
                Read.of(context[start:], start, ends)
                for context, start, ends in zip(contexts, starts, continuations, strict=True)
            ]
            wanted = {leader: 0 for leader, _ in taken.values()}
            for leader, length in taken.values():
                wanted[leader] = max(wanted[leader], length - begun)
            of_leaders: dict[int, torch.Tensor] = {}
            scores: dict[int, list[float]] = {}
            for firsts in (True, False):
                for piece in pieces(
                    {i: len(r.tokens) for i, r in enumerate(asked) if (i not in taken) == firsts}
                ):
                    keep = 1 + max(_extra(continuations[i]) for i in piece)
                    known = [
                        of_leaders[taken[i][0]][..., : starts[i] - begun, :] if i in taken else NOTHING
                        for i in piece
                    ]
                    reads = [asked[i] for i in piece]
                    logits, cache = self._read_behind(
                        known, reads, shared, keep, bool(wanted.keys() & set(piece))
                    )
                    for place, i in enumerate(piece):
                        scores[i] = _scores(logits[place, -1 - _extra(continuations[i]) :], continuations[i])
                        if i in wanted and cache:
                            column = cache.kv[0][0].shape[2] - len(asked[i].tokens)
                            of_leaders[i] = cache.copy(place, slice(column, column + wanted[i]))
            return [scores[i] for i in range(len(contexts))]

    def _read_behind(
        self,
        known: list[torch.Tensor],
        reads: list[Read],
        shared: KeysValues | None,
        keep: int,
        cached: bool,
    ) -> tuple[torch.Tensor, RowCache | None]:
        """Logits (B, ``keep``, vocabulary) of rows of which something is known, and where all of them lies then."""
        lengths = [of_row.shape[-2] for of_row in known]
        most, width = max(lengths), max(len(read.tokens) for read in reads)
        mask = mask_of(reads, lengths, self._model)
        if not (most or cached):
            return self._read(reads, shared, keep=keep, mask=mask), None
        cache = RowCache(self._model, len(reads), most + width)
        for place, of_row in enumerate(known):
            cache.fill(place, most - lengths[place], of_row)
        cache.at(slice(len(reads)), [most] * len(reads), slice(most + width))
        return self._read(reads, shared, cache, keep=keep, mask=mask), cache

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
        self._read([Read.of(tokens, begun)], known.kv if known else None, cache, keep=0)
        return known.with_more(tokens, cache.kv) if known else Prefix(tokens, cache.kv)

    def _read(
        self,
        rows: list[Read],
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
