"""Compute the prompt that the two answers of a pair share only once, on a CPU: prompt, answer a, answer b in one row.

Answer b attends to the prompt and itself, and its positions continue from the prompt's end. Scores and gradients equal
those of two separate texts. The prompt is the longest common prefix of the two texts, token by token, so it is right
for every template.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from constitutional_ai.training.packing import causal_mask, hidden_states

Parts = tuple[int, int, int]
"""Token counts of the prompt, of answer a and of answer b; no answer is empty."""


def parts(a: Sequence[int], b: Sequence[int]) -> Parts:
    """Return the token counts of a pair of texts, given by their token ids."""
    room = min(len(a), len(b)) - 1  # each text's score is read at a token of its own
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
    """Return a causal mask in which answer b does not attend to answer a."""
    prompt, a, b = parts
    mask = causal_mask(prompt + a + b)
    mask[prompt + a :, prompt : prompt + a] = -torch.inf
    return mask


def scores(
    model: Any, *, input_ids: torch.Tensor, position_ids: torch.Tensor, parts: torch.Tensor, **_: Any
) -> SequenceClassifierOutput:
    """Return the scores of all answers a, then of all answers b, each read at its last token: (2 × pairs, 1)."""
    masks = [forked_mask((prompt, a, b)) for prompt, a, b in parts.tolist()]
    hidden_TD = hidden_states(model, masks, input_ids=input_ids, position_ids=position_ids)
    ends_b = parts.sum(1).cumsum(0) - 1
    ends = torch.cat([ends_b - parts[:, 2], ends_b])
    return SequenceClassifierOutput(logits=model.score(hidden_TD[ends]))
