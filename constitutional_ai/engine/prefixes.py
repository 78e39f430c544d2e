"""The prefixes that the sequences of a batch share (few-shots, a conversation to be judged), each computed once.

The same tokens have the same keys and values, so completions change by rounding only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from constitutional_ai.engine.attention import KeysValues
from constitutional_ai.engine.prefill_chunks import common_prefix

ARCHITECTURES = {"llama", "mistral", "qwen2", "qwen3"}
"""Decoders in which every layer attends to all earlier tokens, through transformers' attention interface."""
MIN_TOKENS = 16
"""Tokens from which a shared prefix is worth an attention of its own."""
MAX_BYTES = 512 * 2**20
"""Limit of the prefixes that wait for the next batch. A prefix that is larger by itself is not kept."""


def supports(model: Any) -> bool:
    """Return whether attention with a shared prefix is known, and tested, to be right for ``model``."""
    return model.config._attn_implementation == "sdpa" and supports_config(model.config)


def supports_config(config: Any) -> bool:
    """Return the same of a model's configuration, before its weights are loaded."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in ARCHITECTURES
        # Other RoPE types depend on the total length, so a prefix computed alone would differ.
        and rope.get("rope_type", "default") in {"default", "linear", "llama3", "yarn"}
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    )


class Prefix(NamedTuple):
    """Tokens with their keys and values in every layer."""

    tokens: list[int]
    kv: KeysValues

    @property
    def bytes(self) -> int:
        return sum(x.nbytes for pair in self.kv for x in pair)

    def cut(self, length: int) -> Prefix:
        """Return the first ``length`` tokens of it."""
        return Prefix(self.tokens[:length], [(k[:, :, :length], v[:, :, :length]) for k, v in self.kv])

    def extended(self, tokens: list[int], kv: KeysValues) -> Prefix:
        """Return it followed by more tokens."""
        pairs = zip(self.kv, kv, strict=True)
        joined = [(torch.cat([k, k2], dim=2), torch.cat([v, v2], dim=2)) for (k, v), (k2, v2) in pairs]
        return Prefix(self.tokens + tokens, joined)


class PrefixCache:
    """The prefixes used last, of at most ``limit`` bytes together."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self.limit = limit
        self._kept: list[Prefix] = []  # the one used last stands last

    @property
    def bytes(self) -> int:
        return sum(prefix.bytes for prefix in self._kept)

    def longest(self, tokens: list[int]) -> Prefix | None:
        """Return the longest known prefix of ``tokens``; None if it is shorter than ``MIN_TOKENS``."""
        best = max(self._kept, key=lambda p: common_prefix(p.tokens, tokens), default=None)
        length = common_prefix(best.tokens, tokens) if best else 0
        if best is None or length < MIN_TOKENS:
            return None
        self._kept = [p for p in self._kept if p is not best] + [best]
        return best.cut(length)

    def keep(self, prefix: Prefix) -> None:
        """Add ``prefix`` and drop the ones that it begins with, then those unused for longest until all fit."""
        others = [p for p in self._kept if prefix.tokens[: len(p.tokens)] != p.tokens]
        self._kept = [*others, prefix]
        while self._kept and self.bytes > self.limit:
            # One too large by itself goes alone, rather than all others for it.
            self._kept.remove(prefix) if prefix.bytes > self.limit else self._kept.pop(0)
