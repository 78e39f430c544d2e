from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.errors import InputError
from constitutional_ai.training.mixture import mixed


def rows(helpful: int, other: int) -> list[dict[str, Any]]:
    made = [{"id": f"{source}{n}", "source": source} for source, count in (("people", helpful), ("ai", other))
            for n in range(count)]  # fmt: skip
    return made[::2] + made[1::2]


def test_the_side_of_which_there_is_too_much_is_cut_down() -> None:
    """PM-1: 42.5 % helpfulness."""
    kept = mixed(rows(17, 100), 0.425, helpful=["people"], seed=0)
    assert Counter(row["source"] for row in kept) == {"people": 17, "ai": 23}  # 17 / 40 = 0.425
    kept = mixed(rows(100, 23), 0.425, helpful=["people"], seed=0)
    assert Counter(row["source"] for row in kept) == {"people": 17, "ai": 23}


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 0.99), st.integers(0, 3))
def test_the_share_holds_within_one_row_and_nothing_is_repeated(
    helpful: int, other: int, share: float, seed: int
) -> None:
    given_rows = rows(helpful, other)
    kept = mixed(given_rows, share, helpful=["people"], seed=seed)
    count = Counter(row["source"] for row in kept)
    assert abs(count["people"] - share * len(kept)) <= 1
    assert count["people"] == helpful or count["ai"] == other  # only one side is cut
    assert [row for row in given_rows if row in kept] == kept  # in order, none twice
    assert mixed(given_rows, share, helpful=["people"], seed=seed) == kept


def test_which_rows_stay_is_drawn_by_the_seed() -> None:
    one, other = [mixed(rows(10, 200), 0.5, helpful=["people"], seed=seed) for seed in (0, 1)]
    assert one != other
    assert {row["id"] for row in one if row["source"] == "ai"} != {f"ai{n}" for n in range(10)}


def test_without_a_share_all_rows_are_taken() -> None:
    assert mixed(rows(3, 5), None, helpful=["people"], seed=0) == rows(3, 5)


@pytest.mark.parametrize(("helpful", "other"), [(0, 4), (4, 0), (0, 0)])
def test_a_share_of_nothing_is_refused(helpful: int, other: int) -> None:
    with pytest.raises(InputError, match=r"helpful_share=0\.5 needs rows of source people"):
        mixed(rows(helpful, other), 0.5, helpful=["people"], seed=0)
