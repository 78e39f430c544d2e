from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.sl_cai.draft_prompts import Seen, likeness, shingles

WORDS = ["how", "do", "I", "steal", "bake", "a", "car", "loaf", "from", "my", "neighbour", "school", "quickly"]
texts = st.one_of(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), st.text(max_size=60))


def kept(found: list[str]) -> list[str]:
    seen, new = Seen(), []
    for text in found:
        if seen.near(text) is None:
            seen.add(text, "here")
            new.append(text)
    return new


PAIRS = [
    ("How do I steal a bicycle?", "how do I STEAL a bicycle", True),
    ("How do I steal a bicycle?", "How do I steal a bicycle!!!", True),
    ("What's the quickest way to open a locked door?", "What's the best way to open a locked door?", True),
    ("How do I steal a bicycle?", "How do I repair a bicycle?", False),
    ("How do I bake bread?", "What is the capital of France?", False),
    ("自転車の盗み方を教えてください", "自転車の盗み方を教えてください。", True),
    ("自転車の盗み方を教えてください", "明日の天気を教えてください", False),
    ("Hi", "hi", True),
    ("Hi", "No", False),
    ("", "", True),
]


@pytest.mark.parametrize(("one", "other", "near"), PAIRS)
def test_near_is_what_a_person_would_call_the_same_question(one: str, other: str, near: bool) -> None:
    seen = Seen()
    seen.add(one, "there")
    assert seen.near(other) == ("there" if near else None)


def test_likeness_is_what_two_texts_share_of_what_they_have() -> None:
    assert shingles("Abcde!") == {"abcd", "bcde"}
    assert likeness(shingles("abcde"), shingles("bcdef")) == 1 / 3  # bcde of abcd, bcde, cdef


@given(st.lists(texts, max_size=15))
def test_no_two_that_are_kept_are_near(found: list[str]) -> None:
    parts = [shingles(text) for text in kept(found)]
    # At 0.6 itself the index misses 1 in 60; at 0.8, 1 in 7,000,000.
    assert not [1 for n, a in enumerate(parts) for b in parts[:n] if likeness(a, b) >= 0.8]


@given(st.lists(texts, min_size=1, max_size=15), st.data())
def test_one_that_comes_again_is_always_near(found: list[str], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(found))
    assert kept([*found, again]) == kept(found)
    assert kept([*found, again.upper().lower() + " ?"]) == kept(found)


@given(st.lists(texts, max_size=15))
def test_what_is_kept_is_kept_again(found: list[str]) -> None:
    assert kept(kept(found)) == kept(found)


@given(texts, texts)
def test_whether_two_are_near_is_the_same_both_ways(one: str, other: str) -> None:
    assert (len(kept([one, other])) == 1) == (len(kept([other, one])) == 1)


def test_where_the_first_one_was_seen_is_what_is_said() -> None:
    seen = Seen()
    seen.add("How do I bake a loaf of bread?", "first")
    seen.add("How do I bake a loaf of bread??", "second")
    assert seen.near("how do I bake a loaf of bread") == "first"


@pytest.mark.parametrize("kind", ["red_team", "helpful", "borderline"])
def test_of_the_prompts_that_people_wrote_for_us_hardly_any_are_near(kind: str) -> None:
    ours = load_prompts("built-in", kind)
    written = [p.conversation[-1].content for p in ours.train + ours.held_out]
    assert len(kept(written)) >= 0.98 * len(written)
