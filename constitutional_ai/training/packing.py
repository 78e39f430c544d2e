"""Pack the sequences of a batch end to end into one row, so that a CPU computes no padding.

An optimiser step has the same sequences and the same loss (SL-19 counts sequences), without the padding. Positions
restart with every sequence, and attention is computed within each sequence only.

Attention is written as matrix products, because on a CPU the backward pass of torch's fused kernel is several times
slower, above all in bfloat16. The kernel's advantage, linear instead of quadratic memory, matters for long sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.modeling_outputs import SequenceClassifierOutput

NAME = "one-by-one"
LONG = 1024
"""Tokens above which torch's fused kernel is used, which does not keep the attention weights in memory."""
TESTED = ("llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3")
"""Model types whose tokens interact only in plain attention. All other models are padded."""


def packs(config: Any) -> bool:
    """Return whether a model of this configuration gets packed batches: a tested type, on a CPU."""
    return (
        not torch.cuda.is_available()
        and config.model_type in TESTED
        and not config.attention_dropout
        and getattr(config, "sliding_window", None) is None
        and set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
    )


def causal_mask(length: int) -> torch.Tensor:
    """Return the additive attention mask of one sequence: 0 for a token and earlier ones, −∞ for later ones."""
    return torch.full((length, length), -torch.inf).triu(1)


def hidden_states(causal: Any, masks: Sequence[torch.Tensor], **inputs: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states of all tokens of the packed row: (T, D).

    ``masks`` has one mask for each sequence; ``inputs`` have shape (1, T).
    """
    before = causal.config._attn_implementation
    causal.set_attn_implementation(NAME)
    try:
        hidden_TD: torch.Tensor = causal.base_model(**inputs, masks=masks, use_cache=False).last_hidden_state[0]
    finally:
        causal.set_attn_implementation(before)
    return hidden_TD


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    masks: Sequence[torch.Tensor],
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention as transformers calls it: from (1, heads, T, width) each to (1, T, heads, width)."""
    lengths = [len(mask) for mask in masks]
    # Under autocast, rotary embedding leaves queries and keys in float32; values have the autocast dtype.
    rows = [torch.split(x[0].to(value.dtype), lengths, dim=1) for x in (query * scaling, key, value)]
    outputs = [_one(q, k, v, mask.to(v.dtype)) for q, k, v, mask in zip(*rows, masks, strict=True)]
    return torch.cat(outputs, dim=1).transpose(0, 1)[None], None


def _one(
    query_HTD: torch.Tensor, key_GTD: torch.Tensor, value_GTD: torch.Tensor, mask_TT: torch.Tensor
) -> torch.Tensor:
    """Compute attention within one sequence, with H query heads in G groups that share a head of keys and values."""
    heads, length, width = query_HTD.shape
    groups = len(key_GTD)
    if length > LONG:
        # Without a batch dimension the kernel would keep the attention weights.
        batch = query_HTD[None], key_GTD[None], value_GTD[None]
        return scaled_dot_product_attention(*batch, attn_mask=mask_TT, scale=1.0, enable_gqa=True)[0]
    query = query_HTD.reshape(groups, -1, width)  # heads of a group are stacked along the rows
    mask = mask_TT.repeat(heads // groups, 1).expand(groups, -1, -1)
    weights = torch.baddbmm(mask, query, key_GTD.transpose(1, 2)).softmax(-1)
    return (weights @ value_GTD).reshape(heads, length, width)


AttentionInterface.register(NAME, attend)


# -- answers to one prompt: the prompt and its answers are in one row, so that the prompt is computed only once. Each
# answer attends to the prompt and itself. Scores, log-probabilities and gradients equal those of separate texts.


Parts = Sequence[int]
"""Token counts of a prompt and of each of its answers."""


def parts(a: Sequence[int], b: Sequence[int]) -> tuple[int, int, int]:
    """Return the token counts of what two texts share, and of the rest of each, which is never empty.

    The prompt is the longest common prefix, token by token, so it is right for every template.
    """
    room = min(len(a), len(b)) - 1  # each text needs a token of its own, where its score is read
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a[:room], b[:room], strict=True)))
    return shared, len(a) - shared, len(b) - shared


def in_one_row(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[str, torch.Tensor]:
    """Return the tokens of every pair end to end, their positions, and each pair's parts."""
    ids: list[int] = []
    positions: list[int] = []
    for a, b in pairs:
        shared = parts(a, b)[0]
        ids += [*a, *b[shared:]]
        positions += [*range(len(a)), *range(shared, len(b))]
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "parts": torch.tensor([parts(a, b) for a, b in pairs]),
    }


def forked_mask(parts: Parts) -> torch.Tensor:
    """Return a causal mask in which no answer attends to another."""
    prompt, *answers = parts
    mask, end = causal_mask(sum(parts)), prompt
    for length in answers:
        mask[end + length :, end : end + length] = -torch.inf
        end += length
    return mask


def scores(
    model: Any, *, input_ids: torch.Tensor, position_ids: torch.Tensor, parts: torch.Tensor, **_: Any
) -> SequenceClassifierOutput:
    """Return the scores of all answers a, then of all answers b, each read at its last token: (2 × pairs, 1)."""
    masks = [forked_mask(of_pair) for of_pair in parts.tolist()]
    hidden_TD = hidden_states(model, masks, input_ids=input_ids, position_ids=position_ids)
    ends_b = parts.sum(1).cumsum(0) - 1
    ends = torch.cat([ends_b - parts[:, 2], ends_b])
    return SequenceClassifierOutput(logits=model.score(hidden_TD[ends]))
