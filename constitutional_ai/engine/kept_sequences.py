"""Keys and values that are kept from batch to batch: of shared prefixes, and of finished sequences.

The same tokens have the same keys and values, so completions change by rounding only. A request that begins with all of
an earlier sequence (a critique, its revision, the next round) finds that one's here; only the rest is prefilled.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from constitutional_ai import machine
from constitutional_ai.engine.prefill_chunks import common_prefix

PREFIX_TOKENS, SESSION_TOKENS = 16, 32
"""Tokens from which a shared prefix is worth an attention of its own, and by which a finished sequence is found."""
PREFIX_BYTES = 512 * 2**20
"""Limit of the prefixes that wait for the next batch."""
SESSION_SHARE, SESSION_BYTES = 0.1, 2 * 2**30
"""Limit of finished sequences: a share of the memory of the model's device, and at most so many bytes."""

NOTHING = torch.empty(0, 0, 0, 0, 0)


def session_bytes(device: torch.device) -> int:
    """Return the bytes that finished sequences may take on ``device``."""
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else machine.physical_memory()
    return int(min(SESSION_BYTES, SESSION_SHARE * memory))


class Kept(NamedTuple):
    """Tokens with their keys and values."""

    tokens: list[int]
    prefix_len: int
    """Tokens of the prefix that its batch shared: their keys and values are not kept here."""
    kv: torch.Tensor
    """Keys and values of all later tokens (layers, 2, K, tokens, D)."""


class KeptSequences:
    """The sequences used last, of at most ``limit`` bytes together, that have ``least`` tokens of their own."""

    def __init__(self, limit: int, least: int) -> None:
        self.limit, self._least = limit, least
        self._kept: list[Kept] = []  # the one used last stands last

    @property
    def bytes(self) -> int:
        return sum(each.kv.nbytes for each in self._kept)

    def longest(self, tokens: list[int], prefix_len: int = 0) -> torch.Tensor:
        """Return the known keys and values of ``tokens`` after the first ``prefix_len``: (layers, 2, K, tokens, D)."""
        alike = [
            each
            for each in self._kept
            if (start := each.prefix_len) <= prefix_len
            and tokens[start : start + self._least] == each.tokens[start : start + self._least]
        ]
        best = max(alike, key=lambda each: common_prefix(each.tokens, tokens), default=None)
        if best is None or (length := common_prefix(best.tokens, tokens)) <= prefix_len:
            return NOTHING
        self._kept = [*(each for each in self._kept if each is not best), best]
        return best.kv[..., prefix_len - best.prefix_len : length - best.prefix_len, :]

    def keep(self, new: Kept) -> None:
        """Add a sequence and drop those that it holds all of, then those unused for longest where room is missing.

        One that is larger than the limit is not kept.
        """
        if len(new.tokens) - new.prefix_len < self._least or new.kv.nbytes > self.limit:
            return
        others = (
            each
            for each in self._kept
            if each.prefix_len < new.prefix_len or each.tokens != new.tokens[: len(each.tokens)]
        )
        self._kept = [*others, new]
        excess = self.bytes - self.limit
        while excess > 0:
            excess -= self._kept.pop(0).kv.nbytes
