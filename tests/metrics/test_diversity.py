from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.metrics.diversity import distinct_2, self_similarity

TEXTS = st.lists(st.text(alphabet="ab .\n'", max_size=20), max_size=6)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], None),
        (["Yes.", "No."], None),
        (["Tea is hot."], 1.0),
        (["Tea is hot.", "tea IS hot"], 0.5),
        (["no no no no"], 1 / 3),
        (["It\u2019s hot", "it's cold"], 1.0),
    ],
)
def test_distinct_pairs_of_words(answers: list[str], expected: float | None) -> None:
    assert distinct_2(answers) == expected


def test_pairs_do_not_reach_from_one_answer_into_the_next() -> None:
    assert distinct_2(["one", "two"]) is None


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], None),
        (["alone"], None),
        (["", ""], 1.0),
        (["", "word"], 0.0),
        (["Tea, please!", "tea please"], 1.0),
        (["tea please", "please tea"], 0.5),  # both words, neither pair
        (["a", "a", "b"], 1 / 3),
    ],
)
def test_self_similarity_of_answers_to_one_prompt(answers: list[str], expected: float | None) -> None:
    assert self_similarity(answers) == expected


@given(TEXTS)
def test_both_are_shares_whatever_the_order(answers: list[str]) -> None:
    for figure in (distinct_2, self_similarity):
        value = figure(answers)
        assert value is None or 0 <= value <= 1
        assert value == pytest.approx(figure(answers[::-1]))


@given(TEXTS)
def test_saying_it_all_twice_halves_what_is_distinct(answers: list[str]) -> None:
    once = distinct_2(answers)
    assert distinct_2([*answers, *answers]) == (once and once / 2)
