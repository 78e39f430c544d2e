"""Token after token for many rows at once: draws fixed by each row's own seed, and rows that end make room.

Axes: R rows, S tokens that are read at once, V vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress, count
from typing import Any, NamedTuple, Protocol

import torch

from constitutional_ai.engine.attention import Forward, KeysValues
from constitutional_ai.engine.cpu.kernels import fused
from constitutional_ai.engine.prompt_lookup import AHEAD, Copying

TOGETHER = 8
"""Rows drawn for at once: their probabilities stay in a processor's cache, which halves the time."""
JOIN = 16
"""Steps after which rows that have arrived join: reading them takes a pass of its own, however few they are."""


class Decoding(NamedTuple):
    """How to continue rows, all of them alike but for their seeds."""

    seeds: list[int]
    temperature: float
    max_tokens: int
    stop: tuple[str, ...]
    """Texts that end a row, beside the tokenizer's own end."""


class Arrivals(Protocol):
    """What comes in while a batch runs, and what is to be told of it before it ends."""

    def more(self, beginning: list[int]) -> list[tuple[list[int], int]]:
        """Tokens and seeds of rows that begin so, have more than that, and are no longer than the batch's longest."""
        ...

    def said(self, number: int, tokens: list[int]) -> None:
        """A row has ended. Those that arrive are numbered on."""
        ...


class Draws:
    """Inverse transform sampling. One row's draws depend on its seed alone, not on the batch (SL-10)."""

    def __init__(self, seeds: Sequence[int], temperature: float, steps: int) -> None:
        self._temperature, self._steps = temperature, steps
        self._uniform_RS = torch.empty(0, steps)
        self.add(seeds)

    def add(self, seeds: Sequence[int]) -> None:
        """Rows more."""
        draws = [torch.rand(self._steps, generator=torch.Generator().manual_seed(s)) for s in seeds]
        self._uniform_RS = torch.cat([self._uniform_RS, torch.stack(draws)])

    def __call__(self, logits_RV: torch.Tensor, rows: Sequence[int], steps: Sequence[int]) -> torch.Tensor:
        """A token (R,) for each of the ``rows``, as its draw number ``step``; greedy at temperature 0."""
        if self._temperature == 0:
            return logits_RV.float().argmax(-1)
        uniform_R1 = self._uniform_RS[list(rows), list(steps), None].to(logits_RV.device)
        if logits_RV.device.type == "cpu" and (compiled := fused(logits_RV.dtype)):
            return compiled.draw(logits_RV.contiguous(), uniform_R1, self._temperature)
        parts = [slice(at, at + TOGETHER) for at in range(0, len(logits_RV), TOGETHER)]
        return torch.cat([self._drawn(logits_RV[part], uniform_R1[part]) for part in parts])

    def _drawn(self, logits_RV: torch.Tensor, uniform_R1: torch.Tensor) -> torch.Tensor:
        scaled_RV = logits_RV if self._temperature == 1 else logits_RV.float() / self._temperature
        cumulative_RV = scaled_RV.softmax(-1, dtype=torch.float32).cumsum(-1)
        # The last cumulative value rounds to a little under or over 1: scale the draw, never fall off the end.
        drawn_R1 = torch.searchsorted(cumulative_RV, uniform_R1 * cumulative_RV[:, -1:], right=True)
        return drawn_R1[:, 0].clamp(max=logits_RV.shape[-1] - 1)


class Ending:
    """Whether a row has ended, by a token or by a text."""

    def __init__(self, tokenizer: Any, ends: set[int], stop: Sequence[str]) -> None:
        self._tokenizer, self._ends, self._stop = tokenizer, ends, [s for s in stop if s]
        # A token is at least a byte, and the first ones may be pieces of a letter: some to spare.
        self._tail = 8 + max((len(s.encode()) for s in self._stop), default=0)

    def __call__(self, tokens: list[int]) -> bool:
        if tokens[-1] in self._ends:
            return True
        if not self._stop:
            return False
        tail = self._tokenizer.decode(tokens[-self._tail :], skip_special_tokens=True)
        return any(s in tail for s in self._stop)


class RowCache:
    """Keys and values of each row's own tokens, written in place: no copy at every step, as DynamicCache makes."""

    def __init__(self, model: Any, rows: int, columns: int) -> None:
        config = model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, rows, config.num_key_value_heads, columns, size)
        # A mask does not make numbers of NaN: what it hides is still multiplied.
        made = torch.empty if model.leaves_out else torch.zeros
        self._all = made(shape, dtype=model.dtype, device=model.device)
        self._rows, self._read = slice(0), slice(0)
        self._begin: int | None = 0
        self.columns = torch.zeros(0)
        """Where each row writes."""
        self.first: torch.Tensor | None = None
        """Where what each row attends to begins, if that is more than what it writes."""

    @property
    def kv(self) -> KeysValues:
        return [(keys, values) for keys, values in self._all]

    def reserve(self, rows: int) -> None:
        """Room for so many rows."""
        more = rows - self._all.shape[2]
        if more > 0:
            before = self._all
            self._all = before.new_zeros(*before.shape[:2], rows, *before.shape[3:])
            self._all[:, :, : before.shape[2]] = before

    def at(self, rows: slice, columns: list[int], read: slice, first: list[int] | None = None) -> RowCache:
        """The next forward pass writes its tokens into ``rows``, each from its column on, and attends to ``read``.

        ``first``: where each row's own tokens begin, if it attends to others than those it writes.
        """
        device = self._all.device
        self._rows, self._read = rows, read
        self._begin = columns[0] if len(set(columns)) == 1 else None
        self.columns = torch.tensor(columns, device=device)
        self.first = torch.tensor(first, device=device) if first is not None else None
        return self

    def of_layer(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the rows that are written, all columns of them. ``columns`` says where each writes."""
        keys, values = self._all[number]
        return keys[self._rows], values[self._rows]

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What transformers calls in every layer."""
        T, device = key.shape[2], key.device
        for kept, new in zip(self.of_layer(layer_idx), (key, value), strict=True):
            if self._begin is not None:
                kept[:, :, self._begin : self._begin + T] = new
            else:
                each, ahead = torch.arange(len(new), device=device), torch.arange(T, device=device)
                kept.transpose(1, 2)[each[:, None], self.columns[:, None] + ahead] = new.transpose(1, 2)
        return self.read(layer_idx)

    def read(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values that are attended to."""
        keys, values = self.of_layer(number)
        return keys[:, :, self._read], values[:, :, self._read]

    def move(self, to: list[int], source: list[int]) -> None:
        self._all[:, :, to] = self._all[:, :, source]

    def fill(self, row: int, column: int, kv: torch.Tensor) -> None:
        """With what is known (layers, 2, K, tokens, D), from ``column`` on."""
        if kv.shape[-2]:
            self._all[:, :, row, :, column : column + kv.shape[-2]] = kv

    def copy(self, row: int, columns: slice) -> torch.Tensor:
        return self._all[:, :, row, :, columns].clone()


@dataclass
class Row:
    number: int
    """Of the batch, as it was asked."""
    padding: int
    """Columns of the cache before its first own token."""
    tokens: list[int]
    """All that it has read and said, what rows share included."""
    begun: int
    """How many of these it was asked with."""
    column: int
    """Of the cache, where it writes next."""

    @property
    def said(self) -> list[int]:
        return self.tokens[self.begun :]

    @property
    def steps(self) -> int:
        return len(self.tokens) - self.begun


class Rows:
    """The rows that go on, as they lie in the cache. ``ended`` is told of each, and where it lies."""

    def __init__(self, cache: RowCache, ended: Callable[[Row, int], None]) -> None:
        self.cache, self._ended = cache, ended
        self.rows: list[Row] = []
        self._all: list[Row] = []

    @property
    def count(self) -> int:
        """Of all rows, those that have ended included."""
        return len(self._all)

    def add(self, row: Row) -> int:
        """Where it lies: behind the others."""
        self.rows.append(row)
        self._all.append(row)
        return len(self.rows) - 1

    def said(self) -> list[list[int]]:
        """Of all rows, in the order in which they were asked."""
        return [row.said for row in sorted(self._all, key=lambda row: row.number)]

    def drop(self, ended: Sequence[bool]) -> None:
        """The last ones that go on take the places of those that ended."""
        live = ended.count(False)
        for place, row in enumerate(self.rows):
            if ended[place]:
                self._ended(row, place)
        holes = [i for i in range(live) if ended[i]]
        movers = [i for i in range(live, len(ended)) if not ended[i]]
        if holes:
            self.cache.move(holes, movers)
        for hole, mover in zip(holes, movers, strict=True):
            self.rows[hole] = self.rows[mover]
        del self.rows[live:]


def decode(
    model: Forward,
    rows: Rows,
    logits_RV: torch.Tensor,
    how: Decoding,
    ending: Ending,
    shared: KeysValues | None,
    cancelled: threading.Event,
    copying: Copying,
    joining: Callable[[], tuple[torch.Tensor, list[int]] | None] = lambda: None,
) -> list[list[int]]:
    """What every row says, its end included. ``logits_RV`` are those after each row's last token.

    ``joining`` may add rows behind the others, and gives their logits and their seeds.
    """
    draws = Draws(how.seeds, how.temperature, how.max_tokens + AHEAD)
    logits_RSV, width = logits_RV[:, None], 0
    guesses = [copying.guess(row) for row in rows.rows]
    for step in count(1):
        drawn = _drawn(draws, logits_RSV, rows.rows)
        right = [guess[:1] == tokens[:1] for guess, tokens in zip(guesses, drawn, strict=True)]
        copying.heard(sum(right), len(right))
        heard = zip(rows.rows, drawn, guesses, strict=True)
        ended = [_hear(row, tokens, guess[:width], how, ending) for row, tokens, guess in heard]
        for row in compress(rows.rows, ended):
            copying.forget(row)
        rows.drop(ended)
        if cancelled.is_set():
            break
        here = len(rows.rows)
        joined = joining() if step % JOIN == 0 else None
        if not rows.rows:
            break
        width = 0 if joined else copying.width(here)
        guesses = [copying.guess(row) for row in rows.rows]
        parts = [_read(model, rows, [guess[:width] for guess in guesses[:here]], shared)] if here else []
        if joined:
            draws.add(joined[1])
            parts.append(joined[0][:, None])
        logits_RSV = torch.cat(parts) if joined else parts[0]
    return rows.said()


def _drawn(draws: Draws, logits_RSV: torch.Tensor, rows: Sequence[Row]) -> list[list[int]]:
    """A token after each that was read. All but the first hold only if what was read ahead came true."""
    ahead = range(logits_RSV.shape[1])
    numbers = [row.number for row in rows for _ in ahead]
    steps = [row.steps + n for row in rows for n in ahead]
    drawn: list[list[int]] = draws(logits_RSV.flatten(0, 1), numbers, steps).view(len(rows), -1).tolist()
    return drawn


def _hear(row: Row, drawn: list[int], guess: list[int], how: Decoding, ending: Ending) -> bool:
    """Takes what holds of what was drawn; whether the row has ended with it."""
    for token, guessed in zip(drawn, [*guess, None], strict=False):
        row.tokens.append(token)
        if row.steps == how.max_tokens or ending(row.said):
            return True
        if token != guessed:
            return False
        row.column += 1
    return False


def _read(model: Forward, rows: Rows, guesses: list[list[int]], shared: KeysValues | None) -> torch.Tensor:
    """Logits (R, S, V) after the last token of the first rows, and after each that is guessed to follow."""
    going_on, width, device = rows.rows[: len(guesses)], 1 + max(map(len, guesses)), model.device
    asked = [[row.tokens[-1], *guess] for row, guess in zip(going_on, guesses, strict=True)]
    tokens = torch.tensor([read + [0] * (width - len(read)) for read in asked], device=device)
    ahead_S, columns = torch.arange(width, device=device), [row.column for row in going_on]
    positions_R = torch.tensor([len(row.tokens) - 1 for row in going_on], device=device)
    columns_RS = torch.tensor(columns, device=device)[:, None] + ahead_S
    end = max(columns) + width
    padding_R11 = torch.tensor([row.padding for row in going_on], device=device)[:, None, None]
    column_C = torch.arange(end, device=device)
    hidden_RSC = (column_C < padding_R11) | (column_C > columns_RS[:, :, None])
    mask = torch.zeros(hidden_RSC.shape, dtype=model.dtype, device=device).masked_fill(
        hidden_RSC, float("-inf")
    )
    padding = [row.padding for row in going_on]
    cache = rows.cache.at(slice(len(columns)), columns, slice(end), padding)
    for row in going_on:
        row.column += 1
    return model(tokens, positions_R[:, None] + ahead_S, mask[:, None], cache, shared, width)
