"""The beginnings that requests share, each computed once: few-shots, a conversation judged under many principles.

The same tokens have the same keys and values, so nothing here changes what a model says, save for rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from constitutional_ai.engine.attention import KeysValues
from constitutional_ai.engine.pieces import common

KNOWN = {"llama", "mistral", "qwen2", "qwen3"}
"""Decoders whose every layer attends to all that came before, through transformers' attention interface."""
LEAST = 16
"""Tokens from which a shared beginning is worth an attention of its own."""
KEPT_BYTES = 512 * 2**20
"""Of beginnings that wait for the next batch. A beginning that is larger by itself is not kept."""


def takes(model: Any) -> bool:
    """Whether ``model`` is one of those that this way of attending is known, and tested, to be right for."""
    return model.config._attn_implementation == "sdpa" and knows(model.config)


def knows(config: Any) -> bool:
    """The same of a configuration."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in KNOWN
        # Others change with the length of what is read: a beginning read alone would be another.
        and rope.get("rope_type", "default") in {"default", "linear", "llama3", "yarn"}
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    )


class Prefix(NamedTuple):
    tokens: list[int]
    kv: KeysValues

    @property
    def bytes(self) -> int:
        return sum(x.nbytes for pair in self.kv for x in pair)

    def cut(self, length: int) -> Prefix:
        return Prefix(self.tokens[:length], [(k[:, :, :length], v[:, :, :length]) for k, v in self.kv])

    def with_more(self, tokens: list[int], kv: KeysValues) -> Prefix:
        pairs = zip(self.kv, kv, strict=True)
        joined = [(torch.cat([k, k2], dim=2), torch.cat([v, v2], dim=2)) for (k, v), (k2, v2) in pairs]
        return Prefix(self.tokens + tokens, joined)


class Prefixes:
    """The beginnings used last, of at most ``limit`` bytes together."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self._kept: list[Prefix] = []  # the one used last stands last

    @property
    def bytes(self) -> int:
        return sum(prefix.bytes for prefix in self._kept)

    def longest(self, tokens: list[int]) -> Prefix | None:
        """As much of the beginning of ``tokens`` as is known."""
        best = max(self._kept, key=lambda p: common(p.tokens, tokens), default=None)
        length = common(best.tokens, tokens) if best else 0
        if best is None or length < LEAST:
            return None
        self._kept = [p for p in self._kept if p is not best] + [best]
        return best.cut(length)

    def keep(self, prefix: Prefix) -> None:
        """What ``prefix`` begins with is dropped, as it says that too; then what was not used for longest."""
        others = [p for p in self._kept if prefix.tokens[: len(p.tokens)] != p.tokens]
        self._kept = [*others, prefix]
        while self._kept and self.bytes > self.limit:
            # Too large by itself: better to lose that one than all others for it.
            self._kept.remove(prefix) if prefix.bytes > self.limit else self._kept.pop(0)
