"""What rows read and said, kept until they go on: a critique, then its revision, then the next round.

A request that begins with all of an earlier one finds its keys and values here, and only the rest is read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch

from constitutional_ai import machine
from constitutional_ai.engine.pieces import common

SHARE, MOST = 0.1, 2 * 2**30
"""Of the memory that a model is in, and at most, in bytes."""
KEY = 32
"""Tokens by which an earlier row is found. A row with fewer of its own is not kept."""

NOTHING = torch.empty(0, 0, 0, 0, 0)


def room(device: torch.device) -> int:
    """Bytes for rows that wait."""
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else machine.physical_memory()
    return int(min(MOST, SHARE * memory))


class Kept(NamedTuple):
    tokens: list[int]
    begun: int
    """How many of the tokens were shared with other rows: of those nothing is kept here."""
    kv: torch.Tensor
    """Of all tokens after those (layers, 2, K, tokens, D)."""


class KeptRows:
    """The rows used last, of at most ``limit`` bytes together."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._rows: OrderedDict[tuple[int, ...], Kept] = OrderedDict()
        self._found_by: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def longest(self, row: list[int], begun: int) -> torch.Tensor:
        """Keys and values of what follows the first ``begun`` tokens of ``row``, as far as they are known."""
        best, most = None, begun
        for start in {kept.begun for kept in self._rows.values()}:
            for name in self._found_by.get(_key(row, start), ()) if start <= begun else ():
                length = common(self._rows[name].tokens, row)
                if length > most:
                    best, most = self._rows[name], length
        if best is None:
            return NOTHING
        self._rows.move_to_end(tuple(best.tokens))
        return best.kv[..., begun - best.begun : most - best.begun, :]

    def keep(self, row: Kept) -> None:
        name, size = tuple(row.tokens), row.kv.nbytes
        if len(row.tokens) - row.begun < KEY or size > self.limit:
            return
        if known := self._rows.get(name):
            if known.begun <= row.begun:
                return
            self._drop(name)
        while self.bytes + size > self.limit:
            self._drop(next(iter(self._rows)))
        self._rows[name] = row
        self._found_by.setdefault(_key(row.tokens, row.begun), []).append(name)
        self.bytes += size

    def _drop(self, name: tuple[int, ...]) -> None:
        row = self._rows.pop(name)
        self.bytes -= row.kv.nbytes
        found = self._found_by[_key(row.tokens, row.begun)]
        found.remove(name)
        if not found:
            del self._found_by[_key(row.tokens, row.begun)]


def _key(row: list[int], start: int) -> tuple[int, ...]:
    return (start, *row[start : start + KEY])
