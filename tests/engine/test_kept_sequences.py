"""A session is not prefilled again when it continues, and its completions stay the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.engine.attention import Forward
from constitutional_ai.engine.kept_sequences import PREFIX_TOKENS, SESSION_TOKENS, Kept, KeptSequences
from constitutional_ai.engine.sequence_engine import SequenceEngine
from tests.engine.sequences import PREFIX, SEQUENCES, all_say, completions, greedy


class Reads:
    """Notes how many tokens of how many rows are read at once."""

    def __init__(self, forward: Forward) -> None:
        self.config, self.device, self.dtype = forward.config, forward.device, forward.dtype
        self.skips_masked = forward.skips_masked
        self.forward, self.shapes = forward, []

    def __call__(self, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.shapes.append(tuple(tokens.shape))
        return self.forward(tokens, *rest)


def test_sessions_are_continued_from_where_they_ended(model: Any, forward: Forward, tokenizer: Any) -> None:
    """Sequences of different lengths continue after their completions, in another order, beside a new one."""
    seen = Reads(forward)
    engine = SequenceEngine(seen, tokenizer, {2})
    own = [[*PREFIX, *range(5 + n, 55 + 3 * n)] for n in range(5)]
    first = completions(engine, own)
    assert all_say(model, own, first)
    rows = [[*row, *text, *range(100, 103 + n)] for n, (row, text) in enumerate(zip(own, first, strict=True))]
    again = [*reversed(rows), [*PREFIX, *range(200, 260)]]
    seen.shapes.clear()
    assert all_say(model, again, completions(engine, again))
    read = [shape for shape in seen.shapes if shape[1] > 1]
    assert sum(rows * tokens for rows, tokens in read[:1]) >= 60  # the new one
    assert read[0][1] == 60
    seen.shapes.clear()
    assert all_say(model, rows, completions(engine, rows))
    assert seen.shapes[0] == (5, 1)  # all was known but the last token, which is answered


def test_a_session_continued_alone_prefills_its_completion_and_what_is_new(
    model: Any, forward: Forward, tokenizer: Any
) -> None:
    seen = Reads(forward)
    engine = SequenceEngine(seen, tokenizer, {2})
    row = list(range(5, 85))
    (text,) = completions(engine, [row])
    seen.shapes.clear()
    longer = [*row, *text, 7, 8, 9]
    assert all_say(model, [longer], completions(engine, [longer]))
    assert seen.shapes[0] == (1, len(text) + 3)  # alone, its prompt is a prefix, and kept as one


def test_nothing_is_kept_where_weights_may_change(forward: Forward, tokenizer: Any) -> None:
    seen = Reads(forward)
    engine = SequenceEngine(seen, tokenizer, {2}, keep=False)
    completions(engine, SEQUENCES[:1])
    before = seen.shapes[0]
    seen.shapes.clear()
    completions(engine, SEQUENCES[:1], greedy(1))
    assert seen.shapes[0] == before


def kept(tokens: list[int], begun: int = 0) -> Kept:
    """Its keys and values are its tokens, so that they can be told apart."""
    own = torch.tensor(tokens[begun:], dtype=torch.float32)
    return Kept(tokens, begun, own.expand(1, 2, 1, -1)[..., None])


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(SESSION_TOKENS, SESSION_TOKENS + 8), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 5),
)
def test_the_longest_session_after_the_shared_prefix_is_taken(
    rows: list[tuple[int, int, int]], begun: int
) -> None:
    store = KeptSequences(10**9, SESSION_TOKENS)
    entries = []
    for start, length, end in rows:
        tokens = [*range(start + length), *[90 + end] * 3]
        entries.append((tokens, start))
        store.keep(kept(tokens, start))
    asked = [*range(SESSION_TOKENS + 6), 91, 91, 91, 5]
    found = store.longest(asked, begun)
    expected = 0
    for tokens, start in entries:
        if start <= begun:
            alike = next(
                (i for i, (a, b) in enumerate(zip(tokens, asked, strict=False)) if a != b), len(tokens)
            )
            expected = max(expected, min(alike, len(asked)) - begun)
    assert found.shape[-2] == expected
    assert found.flatten()[:expected].tolist() == asked[begun : begun + expected]


def test_memory_is_bounded_and_the_session_used_longest_ago_goes_first() -> None:
    size = kept(list(range(40))).kv.nbytes
    store = KeptSequences(3 * size, SESSION_TOKENS)
    rows = [[n, *range(100, 139)] for n in range(4)]
    for row in rows[:3]:
        store.keep(kept(row))
    assert store.longest(rows[0], 0).shape[-2] == 40  # used again
    store.keep(kept(rows[3]))
    assert store.bytes == 3 * size
    assert [store.longest(row, 0).shape[-2] for row in rows] == [40, 0, 40, 40]
    store.keep(kept([9, *range(500)]))  # larger than all of it: drives nothing out
    assert [store.longest(row, 0).shape[-2] for row in rows] == [40, 0, 40, 40]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=12),
    st.tuples(st.integers(0, 3), st.integers(1, 60)),
)
def test_no_more_than_the_limit_is_kept_and_the_newest_is_found(
    rows: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    store = KeptSequences(100 * 8, PREFIX_TOKENS)  # 8 bytes a token
    for token, length in rows:
        store.keep(kept([token] * length))
        assert store.bytes <= 800
    wanted = [asked[0]] * asked[1]
    found = store.longest(wanted).flatten().tolist()
    assert found[: len(found) // 2] == wanted[: len(found) // 2]
    if rows and rows[-1][0] == asked[0] and min(rows[-1][1], asked[1]) >= PREFIX_TOKENS:
        assert len(found) // 2 >= min(rows[-1][1], asked[1])


def test_a_sequence_goes_when_a_longer_one_holds_all_of_it() -> None:
    store, row = KeptSequences(10**9, PREFIX_TOKENS), list(range(60))
    store.keep(kept(row[:40]))
    store.keep(kept(row, begun=20))  # lacks the first 20
    assert store.bytes == 8 * 80
    store.keep(kept(row[:50]))
    assert store.bytes == 8 * 90
    assert [store.longest(row, begun).shape[-2] for begun in (0, 20)] == [50, 40]


@pytest.mark.parametrize("length", [SESSION_TOKENS - 1, SESSION_TOKENS])
def test_a_short_session_is_not_kept(length: int) -> None:
    store = KeptSequences(10**9, SESSION_TOKENS)
    store.keep(kept(list(range(length))))
    assert bool(store.bytes) == (length >= SESSION_TOKENS)
