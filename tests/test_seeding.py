from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.seeding import rng, seed_of

NAMES = st.lists(st.integers() | st.text(alphabet="abc.0123", min_size=1), min_size=1, max_size=4)


def test_seeds_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert seed_of(0, "3f2a9c.0", "round", 1) == 2029292920403358287
    assert rng(0, "x").random() == random.Random(seed_of(0, "x")).random()


@given(NAMES)
def test_a_seed_fits_in_63_bits(what: list[object]) -> None:
    assert 0 <= seed_of(*what) < 2**63


@given(NAMES, NAMES)
def test_differently_named_draws_have_different_seeds(one: list[object], other: list[object]) -> None:
    assert (seed_of(*one) == seed_of(*other)) == (list(map(str, one)) == list(map(str, other)))


@given(st.permutations(range(6)))
def test_a_draw_does_not_depend_on_what_was_drawn_before(order: list[int]) -> None:
    assert {n: rng(7, n).random() for n in order} == {n: rng(7, n).random() for n in range(6)}


def test_drawing_leaves_the_global_generator_alone() -> None:
    random.seed(1)
    before = random.getstate()
    rng(0, "x").random()
    assert random.getstate() == before
