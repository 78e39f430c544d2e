"""KV caches of finished sequences, kept for the requests that continue them: a critique, its revision, the next round.

A request that begins with all of an earlier sequence finds that one's keys and values here; only the rest is prefilled.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch

from constitutional_ai import machine
from constitutional_ai.engine.prefill_chunks import common_prefix

SHARE, MAX_BYTES = 0.1, 2 * 2**30
"""The limit: a share of the memory of the model's device, and at most so many bytes."""
KEY_TOKENS = 32
"""Tokens by which an earlier sequence is found. One with fewer of its own is not kept."""

EMPTY = torch.empty(0, 0, 0, 0, 0)


def memory_limit(device: torch.device) -> int:
    """Return the bytes that sessions may take on ``device``."""
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else machine.physical_memory()
    return int(min(MAX_BYTES, SHARE * memory))


class Session(NamedTuple):
    """A finished sequence with its keys and values."""

    tokens: list[int]
    prefix_len: int
    """Tokens of the prefix that its batch shared: their keys and values are not kept here."""
    kv: torch.Tensor
    """Keys and values of all later tokens (layers, 2, K, tokens, D)."""


class SessionCache:
    """The sessions used last, of at most ``limit`` bytes together."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._sessions: OrderedDict[tuple[int, ...], Session] = OrderedDict()
        self._by_key: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def longest(self, tokens: list[int], prefix_len: int) -> torch.Tensor:
        """Return the known keys and values of ``tokens`` after the first ``prefix_len``: (layers, 2, K, tokens, D)."""
        best, most = None, prefix_len
        for start in {session.prefix_len for session in self._sessions.values()}:
            for name in self._by_key.get(_key(tokens, start), ()) if start <= prefix_len else ():
                length = common_prefix(self._sessions[name].tokens, tokens)
                if length > most:
                    best, most = self._sessions[name], length
        if best is None:
            return EMPTY
        self._sessions.move_to_end(tuple(best.tokens))
        return best.kv[..., prefix_len - best.prefix_len : most - best.prefix_len, :]

    def keep(self, session: Session) -> None:
        """Add a session; drop those unused for longest where room is missing."""
        name, size = tuple(session.tokens), session.kv.nbytes
        if len(session.tokens) - session.prefix_len < KEY_TOKENS or size > self.limit:
            return
        if known := self._sessions.get(name):
            if known.prefix_len <= session.prefix_len:
                return
            self._drop(name)
        while self.bytes + size > self.limit:
            self._drop(next(iter(self._sessions)))
        self._sessions[name] = session
        self._by_key.setdefault(_key(session.tokens, session.prefix_len), []).append(name)
        self.bytes += size

    def _drop(self, name: tuple[int, ...]) -> None:
        session = self._sessions.pop(name)
        self.bytes -= session.kv.nbytes
        key = _key(session.tokens, session.prefix_len)
        self._by_key[key].remove(name)
        if not self._by_key[key]:
            del self._by_key[key]


def _key(tokens: list[int], start: int) -> tuple[int, ...]:
    return (start, *tokens[start : start + KEY_TOKENS])
