"""A sub-prefix that some sequences of a batch share is prefilled once, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.engine.attention import Forward
from constitutional_ai.engine.prefill_chunks import (
    CHUNK_TOKENS,
    MIN_SHARED,
    chunks,
    common_prefix,
    shared_subprefixes,
)
from constitutional_ai.engine.sampling import Decoding
from constitutional_ai.engine.sequence_engine import SequenceEngine
from tests.engine.sequences import CONTINUATIONS, PREFIX, all_say, completions

PRINCIPLES = [[5 + (n + 7) * m % 280 for m in range(1, 40)] for n in range(3)]
BRANCHED = [
    [*PREFIX, *principle, *end] for principle in PRINCIPLES for end in ([8, 9], [9, 8, 7], [9, 8, 7, 6])
]
MIXED = [*BRANCHED, [*PREFIX, 5], BRANCHED[0]]


class Counting:
    """Notes how many tokens were read, padding included."""

    def __init__(self, forward: Forward) -> None:
        self.config, self.device, self.dtype = forward.config, forward.device, forward.dtype
        self.skips_masked = forward.skips_masked
        self._forward, self.read = forward, 0

    def __call__(self, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.read += tokens.numel()
        return self._forward(tokens, *rest)


def test_sequences_that_share_a_sub_prefix_generate_what_a_plain_forward_pass_does(
    model: Any, forward: Forward, tokenizer: Any
) -> None:
    how = Decoding(list(range(11)), 1.3, 9, ())
    assert all_say(model, MIXED, completions(SequenceEngine(forward, tokenizer, {2}), MIXED, how), how)


def test_sequences_that_share_a_sub_prefix_score_as_alone(forward: Forward, tokenizer: Any) -> None:
    ends = [[[n + 5] * (n % 4 + 1) for _ in range(n % 3 + 1)] + CONTINUATIONS for n in range(len(MIXED))]
    together = SequenceEngine(forward, tokenizer, {2}).score(MIXED, ends)
    for number, row in enumerate(MIXED):
        (alone,) = SequenceEngine(forward, tokenizer, {2}).score([row], [ends[number]])
        assert together[number] == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_several_completions_of_several_prompts_prefill_each_prompt_once(
    forward: Forward, tokenizer: Any
) -> None:
    counting = Counting(forward)
    prompts = [[*PREFIX[:50], *principle] for principle in PRINCIPLES]
    completions(SequenceEngine(counting, tokenizer, {2}), prompts * 8, Decoding(list(range(24)), 1.0, 1, ()))
    assert counting.read == 50 + 3 * 39 + 21  # and the last token of each of the others, which is answered


def test_both_orders_under_each_principle_prefill_the_principle_once(forward: Forward, tokenizer: Any) -> None:
    counting = Counting(forward)
    rows = [[*PREFIX, *principle, *end] for principle in PRINCIPLES for end in ([8] * 4, [9] * 4)]
    SequenceEngine(counting, tokenizer, {2}).score(rows, [[[7], [9]]] * 6)
    assert counting.read == 150 + 3 * 43 + 3 * 4


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=40), min_size=1, max_size=8).map(
        lambda rows: [[0] * 20 * (len(row) % 3) + row for row in rows]
    ),
    st.integers(0, 20),
)
def test_a_leader_shares_no_sub_prefix_itself(rows: list[list[int]], known: int) -> None:
    found = shared_subprefixes(rows, [min(known, len(row) - 1) for row in rows])
    for number, (leader, length) in found.items():
        assert leader not in found
        assert length <= common_prefix(rows[leader], rows[number]) and length < len(rows[number])
        assert length - min(known, len(rows[number]) - 1) >= MIN_SHARED


@given(st.dictionaries(st.integers(0, 500), st.integers(1, 700), max_size=60))
def test_chunks_hold_every_sequence_once_and_few_tokens(lengths: dict[int, int]) -> None:
    made = list(chunks(lengths))
    assert sorted(i for piece in made for i in piece) == sorted(lengths)
    for piece in made:
        assert len(piece) == 1 or len(piece) * lengths[piece[0]] <= 1.25 * CHUNK_TOKENS
        assert lengths[piece[0]] == max(lengths[i] for i in piece)
