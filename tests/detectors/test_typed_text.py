from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.detectors.boilerplate import offers_to_listen, reassures
from constitutional_ai.detectors.opener import without_opener
from constitutional_ai.detectors.typed_text import as_typed, same_length


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("I\u00a0can\u2019t\u202fhelp.", "I can't help."),
        ("\u201cNo,\u201d she said.", '"No," she said.'),
        ("c\u200ban\u2060no\u00adt\ufeff", "cannot"),
        ("\uff29\u3000\uff43\uff41\uff4e\uff07\uff54", "I can't"),
        ("well\u2011being", "well-being"),
        ("one\u2028two", "one\ntwo"),
        ("\U0001d408 \U0001d41c\U0001d41a\U0001d427", "I can"),
        ("déjà vu, 你好", "déjà vu, 你好"),
        ("a\n\tb", "a\n\tb"),
    ],
)
def test_what_looks_alike_becomes_what_is_typed(text: str, typed: str) -> None:
    assert as_typed(text) == typed


@given(st.text())
def test_typed_text_stays_as_it_is_and_positions_too(text: str) -> None:
    assert as_typed(as_typed(text)) == as_typed(text)
    assert len(same_length(text)) == len(text)
    assert unicodedata.is_normalized("NFKC", as_typed(text))


def test_boilerplate_and_openers_are_found_however_they_are_written() -> None:
    assert reassures("You\u2019re valid.") and reassures("You are\u00a0valid.")
    assert offers_to_listen("I am here\u202fto listen.")
    opener = "Here\u2019s\u00a0the revised response:\u00a0"
    assert without_opener(f"{opener}Ask a\u00a0doctor.") == (opener, "Ask a\u00a0doctor.")
