"""Token after token for many rows at once: draws fixed by each row's own seed, and rows that end make room.

Axes: R rows, V vocabulary, S steps.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from cai.models.attention import KeysValues

TOGETHER = 8
"""Rows drawn for at once: their probabilities stay in a processor's cache, which halves the time."""


class Decoding(NamedTuple):
    """How to continue rows, all of them alike but for their seeds."""

    seeds: list[int]
    temperature: float
    max_tokens: int
    stop: tuple[str, ...]
    """Texts that end a row, beside the tokenizer's own end."""


class Draws:
    """Inverse transform sampling. One row's draws depend on its seed alone, not on the batch (SL-10)."""

    def __init__(self, seeds: Sequence[int], temperature: float, steps: int) -> None:
        draws = [torch.rand(steps, generator=torch.Generator().manual_seed(s)) for s in seeds]
        self._uniform_RS = torch.stack(draws)
        self._temperature = temperature

    def __call__(self, logits_RV: torch.Tensor, rows: Sequence[int], step: int) -> torch.Tensor:
        """A token (R,) for each of the ``rows``; greedy at temperature 0."""
        if self._temperature == 0:
            return logits_RV.float().argmax(-1)
        uniform_R1 = self._uniform_RS[list(rows), step, None].to(logits_RV.device)
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
        shape = (rows, config.num_key_value_heads, columns, size)

        def zeros() -> torch.Tensor:  # not "empty": what is masked is still multiplied, and may not be NaN
            return torch.zeros(shape, dtype=model.dtype, device=model.device)

        self.kv: KeysValues = [(zeros(), zeros()) for _ in range(config.num_hidden_layers)]
        self._rows, self._write, self._read = slice(0), slice(0), slice(0)

    def at(self, rows: slice, write: slice, read: slice) -> RowCache:
        """The next forward pass writes columns ``write`` of ``rows``, and attends to the columns ``read``."""
        self._rows, self._write, self._read = rows, write, read
        return self

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What transformers calls in every layer."""
        keys, values = self.kv[layer_idx]
        keys[self._rows, :, self._write] = key
        values[self._rows, :, self._write] = value
        return keys[self._rows, :, self._read], values[self._rows, :, self._read]

    def move(self, to: list[int], source: list[int]) -> None:
        for keys, values in self.kv:
            keys[to], values[to] = keys[source], values[source]


class Row(NamedTuple):
    number: int
    """Of the batch, as it was asked."""
    padding: int
    position: int
    """Of the token that comes next."""


class Rows:
    """The rows that go on, as they lie in the cache."""

    def __init__(self, cache: RowCache, rows: list[Row], columns: int) -> None:
        """``columns`` of the cache are written."""
        self.cache, self.rows, self.columns = cache, rows, columns
        self.said: list[list[int]] = [[] for _ in rows]

    def drop(self, ended: Sequence[bool]) -> None:
        """The last ones that go on take the places of those that ended."""
        live = ended.count(False)
        holes = [i for i in range(live) if ended[i]]
        movers = [i for i in range(live, len(ended)) if not ended[i]]
        if holes:
            self.cache.move(holes, movers)
        for hole, mover in zip(holes, movers, strict=True):
            self.rows[hole] = self.rows[mover]
        del self.rows[live:]


def decode(
    model: Any,
    rows: Rows,
    logits_RV: torch.Tensor,
    how: Decoding,
    ending: Ending,
    shared: KeysValues | None,
    cancelled: threading.Event,
) -> list[list[int]]:
    """What every row says, its end included. ``logits_RV`` are those after each row's last token."""
    draws = Draws(how.seeds, how.temperature, how.max_tokens)
    for step in range(how.max_tokens):
        drawn_R = draws(logits_RV, [row.number for row in rows.rows], step)
        for row, token in zip(rows.rows, drawn_R.tolist(), strict=True):
            rows.said[row.number].append(token)
        ended = [ending(rows.said[row.number]) for row in rows.rows]
        rows.drop(ended)
        if not rows.rows or step + 1 == how.max_tokens or cancelled.is_set():
            break
        logits_RV = _step(model, rows, step, shared)
    return rows.said


def _step(model: Any, rows: Rows, step: int, shared: KeysValues | None) -> torch.Tensor:
    device, column = model.device, rows.columns + step
    tokens = torch.tensor([[rows.said[row.number][-1]] for row in rows.rows], device=device)
    positions = torch.tensor([[row.position + step] for row in rows.rows], device=device)
    padding_R = torch.tensor([row.padding for row in rows.rows], device=device)
    hidden = torch.arange(column + 1, device=device) < padding_R[:, None]
    mask = torch.zeros(hidden.shape, dtype=model.dtype, device=device).masked_fill(hidden, float("-inf"))
    cache = rows.cache.at(slice(len(rows.rows)), slice(column, column + 1), slice(column + 1))
    out = model(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=mask[:, None, None],
        past_key_values=cache,
        use_cache=True,
        shared=shared,
    )
    logits: torch.Tensor = out.logits[:, -1]
    return logits
