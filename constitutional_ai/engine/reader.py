"""A model together with the keys and values that it has computed already."""

from __future__ import annotations

import torch

from constitutional_ai.engine.attention import Forward, KeysValues
from constitutional_ai.engine.attention_mask import AttentionMask
from constitutional_ai.engine.cpu.process import advise_huge_pages
from constitutional_ai.engine.kv_cache import KVCache
from constitutional_ai.engine.prefill_chunks import PrefillInput, common_prefix
from constitutional_ai.engine.prefixes import MIN_TOKENS, Prefix, PrefixCache
from constitutional_ai.engine.session_cache import SessionCache, memory_limit


class Reader:
    """Prefills sequences, and keeps shared prefixes and sessions from batch to batch."""

    def __init__(self, model: Forward, *, keep: bool) -> None:
        """``keep=False`` keeps nothing between batches, for weights that change in between."""
        self.model = model
        self.prefixes = PrefixCache() if keep else PrefixCache(0)
        self.sessions = SessionCache(memory_limit(model.device) if keep else 0)

    def forget(self) -> None:
        """Drop all kept prefixes and sessions."""
        self.prefixes = PrefixCache(self.prefixes.limit)
        self.sessions = SessionCache(self.sessions.limit)

    def shared_prefix(self, sequences: list[list[int]]) -> tuple[int, KeysValues | None]:
        """Return how many tokens all sequences begin with, and the keys and values of these.

        A last token of each sequence is left out, because its logits are wanted. A prefix shorter than ``MIN_TOKENS``
        counts as none: (0, None).
        """
        # If the least and the greatest begin alike, so does all that is sorted between them.
        least, most = min(sequences), max(sequences)
        length = min(common_prefix(least, most), min(map(len, sequences)) - 1)
        if length < MIN_TOKENS:
            return 0, None
        known = self.prefixes.longest(least[:length])
        missing = least[len(known.tokens) if known else 0 : length]
        if missing:
            known = self._extend(known, missing)
            self.prefixes.keep(known)
        assert known is not None
        return length, known.kv

    def _extend(self, known: Prefix | None, tokens: list[int]) -> Prefix:
        cache = KVCache(self.model, 1, len(tokens)).at(slice(0, 1), 0, slice(len(tokens)))
        prefix_len = len(known.tokens) if known else 0
        self.prefill([PrefillInput.of(tokens, prefix_len)], known.kv if known else None, cache, keep=0)
        return known.extended(tokens, cache.kv) if known else Prefix(tokens, cache.kv)

    def prefill(
        self,
        inputs: list[PrefillInput],
        prefix: KeysValues | None,
        cache: KVCache | None = None,
        keep: int = 1,
        known: list[int] | None = None,
    ) -> torch.Tensor:
        """Return the logits (B, ``keep``, vocabulary) after the last ``keep`` tokens of each sequence.

        ``known[i]`` tokens of sequence i are in ``cache`` already, right before the new ones.
        """
        advise_huge_pages()
        mask = AttentionMask(known or [0] * len(inputs), [each.segments for each in inputs])
        tokens, positions = (
            torch.tensor(
                [[0] * (mask.width - len(each.tokens)) + each[field] for each in inputs],
                device=self.model.device,
            )
            for field in (0, 1)
        )
        return self.model(tokens, positions, mask, cache, prefix, keep)
