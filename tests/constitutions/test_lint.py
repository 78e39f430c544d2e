from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import BUILT_IN, Constitution, Principle, load_constitution
from constitutional_ai.constitutions.lint import Finding, diff, lint
from constitutional_ai.constitutions.published import import_constitution
from tests.paper_files import PAPER, paper

FINE = (
    Principle(name="kind", critique="Was it kind?", revision="Make it kind."),
    Principle(name="honest", preference="Which answer is more honest?"),
)


def found(*more: Principle) -> list[Finding]:
    return lint(Constitution(name="mine", principles=(*FINE, *more)))


def ask(preference: str, name: str = "p") -> Principle:
    return Principle(name=name, preference=preference)


def test_a_sound_constitution_has_no_findings() -> None:
    assert found() == []
    for path in BUILT_IN.glob("*.yaml"):
        assert lint(load_constitution(path.stem)) == []


@paper
def test_the_papers_has_no_findings() -> None:
    assert lint(import_constitution(PAPER)) == []


LONG = "Choose the answer that a patient and well-informed teacher would give to a beginner."
FOUND: list[tuple[Principle, str, str]] = [  # (principle, kind, what the message says)
    (ask("Which answer is more HONEST"), "duplicate", "the same question as 'honest'"),
    (ask("Choose what Human: would like."), "transcript", "preference: 'Human:' is transcript markup"),
    (ask("Which is kinder? Options:"), "transcript", "'Options:'"),
    (ask("Which is kinder? [[[x]]]"), "transcript", "'[[['"),
    (ask("Which is kinder? Let's think step by step:"), "transcript", "think step by step"),
    (ask("Is (A) kinder?"), "option letter", "'(A)' is the letter of an answer"),
    (ask("Prefer answer B when in doubt."), "option letter", "'answer B'"),
    (ask("The assistant should be kind."), "asks nothing", "preference: neither a question nor a request"),
    (Principle(name="p", revision="Kindness above all."), "asks nothing", "revision: neither"),
    (ask("Which agrees with the previous conversations?"), "unseen", "not shown other conversations"),
    (ask("Look up the facts and choose the right answer."), "unseen", "not shown the internet"),
    (ask("Which of the three responses is kindest?"), "unseen", "not shown more than two answers"),
    (ask("Which fits the critique better?"), "unseen", "not shown critiques and revisions"),
    (Principle(name="p", proposition="It is kind."), "asks nothing", "proposition: neither"),
    (Principle(name="p", proposition="Is option A kind?"), "option letter", "'option A'"),
    (
        Principle(name="p", critique="CritiqueRequest: Was it rude?", revision="Rewrite it."),
        "transcript",
        "critique:",
    ),
]


@pytest.mark.parametrize(("principle", "kind", "said"), FOUND)
def test_a_likely_mistake_is_found(principle: Principle, kind: str, said: str) -> None:
    (finding,) = found(principle)
    assert (finding.principle, finding.kind) == ("p", kind)
    assert said in finding.message
    assert str(finding) == f"p: {kind}: {finding.message}"


@pytest.mark.parametrize(
    "text",
    [
        "Which answer a wise person would give is better?",
        "Choose the answer that treats Humans kindly.",
        "Pick the reply that is no longer than it must be.",
        "Welche Antwort ist freundlicher?",
    ],
)
def test_no_mistake_is_found_where_there_is_none(text: str) -> None:
    assert found(ask(text)) == []


def test_texts_that_differ_by_a_word_or_two_are_near_duplicates() -> None:
    (finding,) = found(ask(LONG, "one"), ask(LONG.replace("patient", "kind"), "two"))
    assert (finding.principle, finding.kind) == ("two", "near-duplicate")
    assert "'one'" in finding.message


def test_the_same_critique_with_another_revision_is_no_duplicate() -> None:
    again = Principle(
        name="p", critique="Was it kind?", revision="Rewrite it for a child of ten, without the insults."
    )
    assert found(again) == []


UNANSWERABLE = [  # (question, what the judge is not shown)
    ("Which fits what was said in earlier chats?", "other conversations"),
    ("Which agrees with the person's past sessions?", "other conversations"),
    ("Google it: which is right?", "the internet"),
    ("Which is right after looking up the facts?", "the internet"),
    ("Search the web and choose the one that is true.", "the internet"),
    ("Which describes this photo better?", "pictures or recordings"),
    ("Which sums up this recording?", "pictures or recordings"),
    ("Which of the four options is best?", "more than two answers"),
    ("Rank the six assistant answers.", "more than two answers"),
    ("Which keeps to its revision?", "critiques and revisions"),
    ("Which is kinder? Use your critique.", "critiques and revisions"),
]


@pytest.mark.parametrize(("question", "what"), UNANSWERABLE)
def test_a_question_about_what_the_judge_is_not_shown_is_found(question: str, what: str) -> None:
    (finding,) = found(ask(question))
    assert finding.kind == "unseen"
    assert finding.message.endswith(f": the feedback model is not shown {what}")


@pytest.mark.parametrize(
    "question",
    [
        "Which answer fits the earlier turns of this conversation?",
        "Which of the two answers is better?",
        "Which would you choose if you could look at both again?",
        "Which is more critical?",
    ],
)
def test_a_question_about_what_the_judge_is_shown_is_not(question: str) -> None:
    assert found(ask(question)) == []


def test_a_critique_may_speak_of_a_revision_since_its_model_is_shown_both() -> None:
    assert found(Principle(name="p", critique="Say what your critique left out.", revision="Mend it.")) == []


def test_the_change_between_two_versions_is_named() -> None:
    old = Constitution(
        name="mine", principles=(*FINE, ask("Which is wiser?", "wise"), ask("Which is safer?", "safe"))
    )
    kind = FINE[0].model_copy(update={"revision": "Make it kinder.", "weight": 2.0})
    new = Constitution(
        name="mine", principles=(kind, FINE[1], ask("Which is wiser?", "w"), ask("Choose.", "new"))
    )
    assert diff(old, new) == [
        f"mine {old.digest} -> mine {new.digest}",
        "changed kind: revision: 'Make it kind.' -> 'Make it kinder.'",
        "changed kind: weight: 1.0 -> 2.0",
        "added   w: Which is wiser?",
        "added   new: Choose.",
        "removed wise: Which is wiser?",
        "removed safe: Which is safer?",
    ]


def test_no_change_and_a_change_of_order_are_told_apart() -> None:
    old = Constitution(name="mine", principles=FINE)
    assert diff(old, old)[1:] == ["the same"]
    assert diff(old, Constitution(name="mine", principles=FINE[::-1]))[1:] == [
        "only the order of the principles changed"
    ]


WORDS = ["{}", "(A)", "[[[", "\\", "(?", "Human:", " ", "\n", "\u2028", "é"]
TEXT = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), min_size=1, max_size=5).map("".join)
SAID = TEXT.map(lambda text: f"x{text}")
PRINCIPLES = st.lists(
    st.builds(Principle, name=SAID, revision=SAID, critique=st.none() | SAID, preference=st.none() | SAID),
    min_size=1,
    max_size=5,
    unique_by=lambda p: p.name,
)


@settings(max_examples=50, deadline=None)
@given(PRINCIPLES, PRINCIPLES)
def test_hostile_texts_are_checked_and_compared_like_any(one: list[Principle], other: list[Principle]) -> None:
    old, new = (Constitution(name="mine", principles=tuple(ps)) for ps in (one, other))
    names = {p.name for p in old.principles}
    assert {finding.principle for finding in lint(old)} <= names
    assert diff(old, old)[1:] == ["the same"]
    assert len(diff(old, new)) >= 2
