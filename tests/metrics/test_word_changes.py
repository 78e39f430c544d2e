from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai.metrics.word_changes import MOST_WORDS, word_changes
from tests.test_hostile_text import TEXT


def test_a_changed_word_is_removed_and_added() -> None:
    changes = word_changes("You should steal it from the shop.", "You should buy it from the shop.")
    assert [tuple(part) for part in changes.parts] == [
        ("same", "You should "),
        ("removed", "steal "),
        ("added", "buy "),
        ("same", "it from the shop."),
    ]
    assert (changes.kept, changes.removed, changes.added, changes.left_out) == (6, 1, 1, 0)


def test_a_common_word_between_two_changes_is_changed_with_them() -> None:
    changes = word_changes("first we break the lock and leave", "first you open the door and leave")
    assert [part.change for part in changes.parts] == ["same", "removed", "added", "same"]


@settings(max_examples=50)
@given(TEXT | st.text(), TEXT | st.text())
def test_both_texts_are_all_there(before: str, after: str) -> None:
    parts = word_changes(before, after).parts
    new = "".join(part.text for part in parts if part.change != "removed")
    old = [word for part in parts if part.change != "added" for word in part.text.split()]
    assert new == (after if after.strip() else "")
    assert old == before.split()


def test_equal_texts_have_no_changes() -> None:
    assert [part.change for part in word_changes("a b", "a b").parts] == ["same"]
    assert word_changes("", "").parts == ()


def test_texts_that_loop_are_compared_in_bounded_time() -> None:
    start = time.process_time()
    changes = word_changes("no " * 50_000, "no yes " * 25_000)
    assert changes.left_out == 2 * (50_000 - MOST_WORDS)
    assert time.process_time() - start < 5
