from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.metrics.elo import EloRating, elo
from constitutional_ai.records import Match

Winner = Literal["a", "b", "tie"] | None


def match(n: int, a: str, b: str, winner: Winner, prompt: str | None = None) -> Match:
    return Match(str(n), prompt or f"p{n}", a, b, winner)


def played(*results: tuple[str, str, int]) -> list[Match]:
    """``("x", "y", 3)``: x beat y three times."""
    wins = [(x, y) for x, y, count in results for _ in range(count)]
    return [match(n, x, y, "a") for n, (x, y) in enumerate(wins)]


def points(ratings: dict[str, EloRating]) -> dict[str, float | None]:
    return {name: rating.elo.value for name, rating in ratings.items()}


def test_three_wins_in_four_are_190_8_points() -> None:
    found = elo(played(("new", "sl-cai", 75), ("sl-cai", "new", 25)), anchor="sl-cai")
    new = found["new"]
    # 400 · log10(3), and 400 / ln 10 / √(100 · 0.75 · 0.25)
    assert (new.elo.value, new.error) == (pytest.approx(190.85, abs=0.01), pytest.approx(40.12, abs=0.01))
    assert (new.elo.low, new.elo.high) == (
        pytest.approx(190.85 - 1.96 * 40.12, abs=0.01),
        pytest.approx(190.85 + 1.96 * 40.12, abs=0.01),
    )
    assert (new.elo.model, new.elo.count) == ("new", 100)


def test_the_anchor_is_zero_and_has_no_interval() -> None:
    anchor = elo(played(("a", "b", 3), ("b", "a", 1)), anchor="b")["b"]
    assert (anchor.elo.value, anchor.elo.low, anchor.elo.high, anchor.error) == (0.0, None, None, None)


def test_ratings_add_up_along_a_chain_of_matches() -> None:
    """top and low never met. 9 in 10 are 381.7 points, 3 in 4 are 190.8."""
    found = elo(
        played(("top", "mid", 9), ("mid", "top", 1), ("mid", "low", 3), ("low", "mid", 1)), anchor="low"
    )
    assert points(found) == {
        "low": 0.0,
        "mid": pytest.approx(190.85, abs=0.01),
        "top": pytest.approx(572.55, abs=0.01),
    }


def test_ties_are_discarded() -> None:
    said: list[Winner] = ["a", "a", "a", "b", "tie", "tie", None]
    found = elo([match(n, "x", "y", w) for n, w in enumerate(said)], anchor="y")
    assert (found["x"].elo.value, found["x"].elo.count) == (pytest.approx(400 * math.log10(3)), 4)


UNBOUNDED = [
    *played(("x", "zero", 3), ("zero", "x", 1)),  # rated
    *played(("always", "x", 5), ("x", "never", 5)),
    *played(
        ("king", "always", 1), ("queen", "king", 1), ("king", "queen", 1)
    ),  # a ring that never lost outside
    *played(("queen", "apart", 1), ("far", "away", 1), ("away", "far", 1)),
    match(0, "zero", "undecided", None),
]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("always", "its rating has no upper bound: no chain of wins leads from zero to it"),
        ("queen", "its rating has no upper bound: no chain of wins leads from zero to it"),
        ("never", "its rating has no lower bound: no chain of wins leads from it to zero"),
        ("apart", "nothing compares it with zero: no chain of wins leads from the one to the other"),
        ("far", "nothing compares it with zero: no chain of wins leads from the one to the other"),
        ("undecided", "it has won or lost no match"),
        ("absent", "it has won or lost no match"),
    ],
)
@pytest.mark.parametrize("resamples", [0, 20])
def test_what_has_no_finite_rating_has_none_and_says_why(model: str, why: str, resamples: int) -> None:
    found = elo(UNBOUNDED, anchor="zero", models=["absent"], resamples=resamples)
    rating = found[model]
    assert (rating.elo.value, rating.elo.low, rating.elo.high, rating.error) == (None, None, None, None)
    assert rating.unrated == why


def test_what_bounds_nothing_moves_nothing() -> None:
    alone = elo(UNBOUNDED[:4], anchor="zero")["x"]
    among = elo(UNBOUNDED, anchor="zero")["x"]
    assert among.elo.value == pytest.approx(400 * math.log10(3))
    assert (among.error, among.unrated) == (pytest.approx(alone.error), None)


def test_an_anchor_that_has_not_played_rates_nobody() -> None:
    found = elo(played(("sl-cai", "x", 1)), anchor="start")
    assert points(found) == {"sl-cai": None, "start": None, "x": None}
    assert found["start"].unrated == "it has won or lost no match"


def tournament(strengths: dict[str, float], count: int, rng: random.Random) -> list[Match]:
    made = []
    for n in range(count):
        a, b = rng.sample(sorted(strengths), 2)
        chance = 1 / (1 + 10 ** ((strengths[b] - strengths[a]) / 400))
        made.append(match(n, a, b, "a" if rng.random() < chance else "b"))
    return made


TRUTH = {"sl-cai": 0.0, "h": -60.0, "hh": 40.0, "rl-cai": 120.0}


def covered(tournaments: int, resamples: int) -> float:
    """Share of the intervals of 150 matches between 4 models that hold the truth."""
    rng, held = random.Random(1), []
    for seed in range(tournaments):
        found = elo(tournament(TRUTH, 150, rng), anchor="sl-cai", resamples=resamples, seed=seed)
        for name in TRUTH.keys() - {"sl-cai"}:
            low, high = found[name].elo.low, found[name].elo.high
            assert low is not None and high is not None
            held.append(low <= TRUTH[name] <= high)
    return sum(held) / len(held)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    assert 0.93 <= covered(1000, 0) <= 0.97


def test_bootstrap_intervals_do_so_too() -> None:
    assert 0.92 <= covered(150, 300) <= 0.98


def test_matches_on_one_prompt_are_drawn_together() -> None:
    """Everything said four times over is no more evidence, and the bootstrap knows it."""
    once = tournament(TRUTH, 150, random.Random(2))
    often = [m for m in once for _ in range(4)]
    bootstrap = [elo(m, anchor="sl-cai", resamples=200)["hh"].elo for m in (once, often)]
    fisher = [elo(m, anchor="sl-cai")["hh"].error or 0.0 for m in (once, often)]
    assert (bootstrap[0].low, bootstrap[0].high) == pytest.approx((bootstrap[1].low, bootstrap[1].high))
    assert fisher[0] == pytest.approx(2 * fisher[1])


def test_an_end_that_resamples_do_not_bound_is_none() -> None:
    """A third of the resamples of ten prompts lack the only one that x lost."""
    found = elo(played(("x", "zero", 9), ("zero", "x", 1)), anchor="zero", resamples=200)["x"].elo
    assert found.value == pytest.approx(400 * math.log10(9))
    assert found.low is not None and found.low < found.value
    assert found.high is None


def test_resamples_that_all_say_the_same_are_no_interval() -> None:
    """Both win once on each prompt, so every resample is even and says nothing of the spread."""
    even = [match(n, *sides, "a", f"p{n // 2}") for n, sides in enumerate([("x", "zero"), ("zero", "x")] * 3)]
    found = elo(even, anchor="zero", resamples=100)["x"]
    assert (found.elo.value, found.elo.low, found.elo.high) == (pytest.approx(0), None, None)
    assert found.error == pytest.approx(400 / math.log(10) / math.sqrt(6 / 4))


def test_resamples_that_cannot_tell_a_model_from_the_anchor_bound_nothing() -> None:
    """A third of them lack the only prompt on which the anchor played."""
    both = [match(n, *sides, "a", "p0") for n, sides in enumerate([("x", "zero"), ("zero", "x")])]
    rest = [match(n, *sides, "a", f"p{n}") for n in range(1, 5) for sides in (("x", "y"), ("y", "x"))]
    for name in "xy":
        found = elo(both + rest, anchor="zero", resamples=200)[name].elo
        assert (found.value, found.low, found.high) == (pytest.approx(0), None, None)


def test_a_bootstrap_does_not_ask_which_match_came_first() -> None:
    matches = [replace(m, prompt=f"p{n % 20}") for n, m in enumerate(tournament(TRUTH, 150, random.Random(5)))]
    one, turned = (elo(some, anchor="sl-cai", resamples=50) for some in (matches, matches[::-1]))
    assert one == turned
    assert one["hh"].elo.low is not None


def test_the_same_seed_draws_the_same() -> None:
    matches = tournament(TRUTH, 100, random.Random(3))
    one, same, other = (elo(matches, anchor="hh", resamples=50, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


def test_twenty_models_and_fifty_thousand_matches_take_no_time() -> None:
    """0.2 seconds, and 0.6 with a bootstrap, on an idle core. Machines that do other work are slower."""
    rng = random.Random(4)
    matches = tournament({f"m{n}": rng.gauss(0, 100) for n in range(20)}, 50_000, rng)
    began = time.process_time()
    assert elo(matches, anchor="m0", resamples=1000)["m1"].unrated is None
    assert time.process_time() - began < 6


MODELS = "uvwxyz"
RESULTS = st.lists(
    st.tuples(
        st.sampled_from(MODELS),
        st.sampled_from(MODELS),
        st.sampled_from(["a", "b", "tie", None]),
        st.integers(0, 5),
    ).filter(lambda r: r[0] != r[1]),
    min_size=1,
    max_size=60,
)


@st.composite
def some_matches(draw: st.DrawFn) -> list[Match]:
    return [match(n, a, b, said, f"p{prompt}") for n, (a, b, said, prompt) in enumerate(draw(RESULTS))]


def close(found: float | None, wanted: float | None) -> bool:
    return (found is None and wanted is None) or found == pytest.approx(wanted, abs=1e-4)


@given(some_matches())
def test_another_anchor_shifts_all_ratings_alike(matches: list[Match]) -> None:
    old, new = matches[0].a, matches[0].b
    before = elo(matches, anchor=old)
    after = elo(matches, anchor=new)
    shift = before[new].elo.value
    if shift is None:
        assert after[old].elo.value is None
        return
    for name, rating in before.items():
        value = rating.elo.value
        assert close(after[name].elo.value, None if value is None else value - shift)
    assert close(after[old].error, before[new].error)


@given(some_matches())
def test_who_loses_where_others_win_has_the_opposite_rating(matches: list[Match]) -> None:
    turned = [Match(m.id, m.prompt, m.b, m.a, m.winner) for m in matches]
    before, after = (elo(m, anchor=matches[0].a) for m in (matches, turned))
    for name, rating in before.items():
        value, opposite = rating.elo.value, after[name].elo.value
        assert close(opposite, None if value is None else -value)
        assert close(after[name].error, rating.error)


@given(some_matches(), st.randoms(use_true_random=False))
def test_the_order_of_matches_and_of_the_two_sides_is_nothing(matches: list[Match], rng: random.Random) -> None:
    other: dict[Winner, Winner] = {"a": "b", "b": "a", "tie": "tie", None: None}
    turned = [
        Match(m.id, m.prompt, m.b, m.a, other[m.winner]) if rng.random() < 0.5 else m
        for m in rng.sample(matches, len(matches))
    ]
    assert elo(matches, anchor=matches[0].a, resamples=10) == elo(turned, anchor=matches[0].a, resamples=10)


@given(some_matches())
def test_no_interval_leaves_its_rating_out(matches: list[Match]) -> None:
    for rating in elo(matches, anchor=matches[0].a).values():
        if rating.elo.low is not None and rating.elo.high is not None and rating.elo.value is not None:
            assert rating.elo.low < rating.elo.value < rating.elo.high
