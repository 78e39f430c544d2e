"""Memory for weights lies in huge pages where the system has them."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.engine.cpu import memory


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages need Linux")
@given(st.lists(st.integers(1, 300), max_size=20))
def test_an_arena_gives_zeros_that_begin_on_a_line_of_the_cache(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "BLOCK", 512)
        arena = memory.Arena()
        given_ = [arena.take(size) for size in sizes]
    for n, (size, taken) in enumerate(zip(sizes, given_, strict=True)):
        assert size <= len(taken) < size + 64 and taken.data_ptr() % 64 == 0
        assert not taken.any()
        taken.fill_(n + 1)
    assert all((taken == n + 1).all() for n, taken in enumerate(given_))
