"""Which side is shown first, and what a form's values mean."""

from __future__ import annotations

from collections import Counter

import pytest

from constitutional_ai.errors import RecordError
from constitutional_ai.label.label_pages import CHOICES
from constitutional_ai.label.label_questions import Choice, choice_of, first_side, value_of


def test_each_side_is_first_for_half_of_people_and_questions() -> None:
    sides = Counter(first_side(0, f"q{n}", person) for n in range(500) for person in ("anna", "ben"))
    assert 440 < sides["a"] < 560
    alike = sum(first_side(0, f"q{n}", "anna") == first_side(0, f"q{n}", "ben") for n in range(500))
    assert 200 < alike < 300


@pytest.mark.parametrize("first", ["a", "b"])
def test_every_button_comes_back_as_it_was_pressed(first: str) -> None:
    side = "a" if first == "a" else "b"
    for value, _, _ in CHOICES:
        assert value_of(choice_of(value, side), side) == value


def test_a_place_means_a_side() -> None:
    assert choice_of("first-3", "b") == Choice("b", 3)
    assert choice_of("second-1", "b") == Choice("a", 1)
    assert choice_of("second-1", "b").signed == 1 and choice_of("both_bad", "a").signed == 0


@pytest.mark.parametrize("value", ["", "first", "first-4", "first-0", "a", "third-1", "tie-1", "first-²"])
def test_nothing_else_is_a_choice(value: str) -> None:
    with pytest.raises(RecordError):
        choice_of(value, "a")
