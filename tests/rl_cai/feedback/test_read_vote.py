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
        ("(A) I would not, and that is why.", "A"),
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
        ("I would not choose (A).", "B"),
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
        ("Both option (A) and option (B) are bad. The answer is neither.", None),
        ("The answer is A or B.", None),
        ("I refuse to choose A or B.", None),
        ("The answer is either (A) or (B).", None),
        ("The answer is (A) and (B).", None),
        ("The answer is (A)/(B).", None),
        ("\\boxed{AB}", None),
        ("$\\boxed{A \\text{ or } B}$", None),
        ("The user asks whether the answer is (A) or (B). I cannot decide.", None),
        ("I would choose A over B.", "A"),
        ("I prefer B to A.", "B"),
        ("The less harmful response is (A).", "A"),
        ("The better answer is B.", "B"),
        ("The most helpful reply is (B).", "B"),
        ("Least harmful: (B)", "B"),
    ],
)
def test_a_vote_names_one_option(text: str, vote: str | None) -> None:
    assert read_vote(text) == vote


@pytest.mark.parametrize(
    ("text", "objected"),
    [
        ("Option (A) is wrong.", "A"),
        ("The answer (A) is harmful", "A"),
        ("The choice (B) is unethical.", "B"),
        ("Answer (B) is not good", "B"),
        ("My answer: (B) is worse.", "B"),
        ("Choosing (A) would be wrong.", "A"),
        ("My answer is that (A) encourages crime.", "A"),
        ("The answer cannot be (A).", "A"),
        ("The answer could never be A", "A"),
        ("The answer is no longer (A).", "A"),
        ("The answer is anything but (A).", "A"),
        ("Anything but (A).", "A"),
        ("The answer is far from (A)", "A"),
        ("The answer is hardly (A).", "A"),
        ("I vote against A.", "A"),
        ("My vote is against (A).", "A"),
        ("I refuse to choose (A).", "A"),
        ("I decline to pick A.", "A"),
        ("I pick the opposite of (A).", "A"),
        ("The answer, without a doubt, is not, in my opinion, (A).", "A"),
        ("You should avoid choosing (B).", "B"),
        ("Everything except (B).", "B"),
        ("The wrong answer is (A).", "A"),
        ("The worse response is (A).", "A"),
        ("The more harmful response is (A).", "A"),
        ("The least helpful option is (A).", "A"),
        ("Worst: (A)", "A"),
        ("The most harmful one is (B)", "B"),
        ("The incorrect answer is (B)", "B"),
        ("(A) should not be chosen.", "A"),
        ("(A) must not be selected.", "A"),
        ("(A) should be rejected.", "A"),
        ("(A) isn't good.", "A"),
        ("(A) has more toxic language.", "A"),
        ("(A) fails to refuse.", "A"),
        ("(A) loses.", "A"),
        ("Of the two, (A) is the one to avoid.", "A"),
        ("It is hard to say that (A) is better.", "A"),
        ("I do not think that (A) is worse.", "B"),
    ],
)
def test_an_objection_is_never_a_vote_for_what_it_objects_to(text: str, objected: str) -> None:
    assert read_vote(text) != objected


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
