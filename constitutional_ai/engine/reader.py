"""A model together with the keys and values that it has computed already."""

from __future__ import annotations

import torch

from constitutional_ai.engine.attention import Forward, KeysValues
from constitutional_ai.engine.attention_mask import AttentionMask
from constitutional_ai.engine.cpu.neighbours import threads_for
from constitutional_ai.engine.cpu.process import advise_huge_pages
from constitutional_ai.engine.kept_sequences import (
    PREFIX_BYTES,
    PREFIX_TOKENS,
    SESSION_TOKENS,
    Kept,
    KeptSequences,
    session_bytes,
)
from constitutional_ai.engine.kv_cache import KVCache
from constitutional_ai.engine.prefill_chunks import PrefillInput, common_prefix


class Reader:
    """Prefills sequences, and keeps shared prefixes and sessions from batch to batch."""

    def __init__(self, model: Forward, *, keep: bool) -> None:
        """``keep=False`` keeps nothing between batches, for weights that change in between."""
        self.model, self._keep = model, keep
        self.forget()

    def forget(self) -> None:
        """Drop all kept prefixes and sessions."""
        self.prefixes = KeptSequences(PREFIX_BYTES if self._keep else 0, PREFIX_TOKENS)
        self.sessions = KeptSequences(session_bytes(self.model.device) if self._keep else 0, SESSION_TOKENS)

    def shared_prefix(self, sequences: list[list[int]]) -> tuple[int, KeysValues | None]:
        """Return how many tokens all sequences begin with, and the keys and values of these.

        A last token of each sequence is left out, because its logits are wanted. A prefix of fewer than
        ``PREFIX_TOKENS`` counts as none: (0, None).
        """
        # If the least and the greatest begin alike, so does all that is sorted between them.
        least, most = min(sequences), max(sequences)
        length = min(common_prefix(least, most), min(map(len, sequences)) - 1)
        if length < PREFIX_TOKENS:
            return 0, None
        kv = self.prefixes.longest(least[:length])
        if (count := kv.shape[-2]) < length:
            kv = self._extended(kv, least[count:length])
            self.prefixes.keep(Kept(least[:length], 0, kv))
        return length, _by_layer(kv)

    def _extended(self, kv: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        """Return keys and values (layers, 2, K, tokens, D) followed by those of more tokens."""
        cache, count = KVCache(self.model, 1, len(tokens)), kv.shape[-2]
        cache.at(slice(0, 1), 0, slice(len(tokens)))
        self.prefill([PrefillInput.of(tokens, count)], _by_layer(kv) if count else None, cache, [0], keep=0)
        return torch.cat([kv, cache.all[:, :, 0]], dim=-2) if count else cache.all[:, :, 0]

    def prefill(
        self,
        inputs: list[PrefillInput],
        prefix: KeysValues | None,
        cache: KVCache,
        known: list[int],
        keep: int = 1,
        decoding: bool = False,
        head_OE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the logits (B, ``keep``, vocabulary) after the last ``keep`` tokens of each sequence.

        ``known[i]`` tokens of sequence i are in ``cache`` already, right before the new ones. ``head_OE``: see
        ``Forward``.
        """
        advise_huge_pages()
        mask = AttentionMask(known, [each.segments for each in inputs], decoding)
        tokens, positions = (
            torch.tensor(
                [[0] * (mask.width - len(each.tokens)) + each[field] for each in inputs],
                device=self.model.device,
            )
            for field in (0, 1)
        )
        with threads_for(tokens.numel()):
            return self.model(tokens, positions, mask, cache, prefix, keep, head_OE)


def _by_layer(kv: torch.Tensor) -> KeysValues:
    return [(keys[None], values[None]) for keys, values in kv]
