"""Test which option a reply votes for: the one that it names as better, or the one that it does not object to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.rl_cai.feedback.read_vote import read_vote


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ("(A)", "A"),
        (" (B).", "B"),
        ("A", "A"),
        ("B: it is kinder", "B"),
        ("The answer is (A).", "A"),
        ("(A) is kinder than (B)", None),
        ("A good question", None),
        ("I cannot choose.", None),
        ("Both", None),
        ("", None),
        ("not (A)", "B"),
        ("(A) is harmful", "B"),
        ("(A) is harmful.", "B"),
        ("Answer: B", "B"),
        ("(b)", "B"),
        ("b", "B"),
        ("\\boxed{B}", "B"),
        ("$\\boxed{\\text{(A)}}$", "A"),
        ("**B**", "B"),
        ("**Answer:** (A)", "A"),
        ("[[B]]", "B"),
        ("Option B", "B"),
        ("Option B is better.", "B"),
        ("Response A is better because it is kind", "A"),
        ("I choose (A) over (B).", "A"),
        ("I prefer (B) to (A)", "B"),
        ("(A) is harmful, so (B)", "B"),
        ("(A) is rude, (B) is kind.", "B"),
        ("I would not choose (A).", None),
        ("I cannot choose (A) or (B).", None),
        ("Neither (A) nor (B) is harmful", None),
        ("Both (A) and (B) are harmful", None),
        ("The answer is (A), not (B).", "A"),
        ("The answer is not (A).", "B"),
        ("(A) because (B) is dangerous", "A"),
        ("(A) is less harmful", "A"),
        ("(B) is the least harmful", "B"),
        ("(A) is more harmful than (B)", "B"),
        ("(A) is not harmful", "A"),
        ("(B) isn't harmful", "B"),
        ("The better response is (B)", "B"),
        ("<think>\n(A) is rude, (B) is kind.\n</think>\n\n(B)", "B"),
        ("<think>(A) tells how, so", None),
        ("(A) is rude, (B) is kind.\n</think>\n\n(B)", "B"),
        ("<think>\nReply (A) would help a burglar.\n</think>\n\nB", "B"),
        ("Answer: a", "A"),
        ("answer: a kind one", None),
        ('{"answer": "B"}', "B"),
        ("Final answer: (A)", "A"),
        ("My vote: B", "B"),
        ("B)", "B"),
        ("A.", "A"),
        ("Let me compare. (A) gives instructions. (B) declines. The answer is: (B)", "B"),
        ("A is better", "A"),
        ("(A) and (B) are the same.", None),
        ("Between (A) and (B), I pick (B).", "B"),
        ("I'd go with (A).", "A"),
        ("Avoid (A).", "B"),
        ("The answer is (A). Wait, the answer is (B).", "B"),
        ("It's a tie.", None),
        ("A tie", None),
        ("I can't say that (A) is better", None),
        ("(A)\n\nExplanation: (B) is wrong.", "A"),
        ("A: it is kinder than B", "A"),
        ("(A) seems unsafe; (B) seems fine", "B"),
        ("(A) does not answer; (B) does.", None),
    ],
)
def test_a_vote_names_one_option(text: str, vote: str | None) -> None:
    assert read_vote(text) == vote


SWAP = str.maketrans("AB", "BA")


@pytest.mark.parametrize(
    "form", ["({})", "{}", "Answer: {}", "not ({})", "({}) is harmful", "\\boxed{{{}}}", "[[{}]]"]
)
def test_no_form_prefers_an_option(form: str) -> None:
    a, b = read_vote(form.format("A")), read_vote(form.format("B"))
    assert a is not None
    assert b == a.translate(SWAP)


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert read_vote(text) in ("A", "B", None)
