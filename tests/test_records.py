from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.records import (
    Answer,
    Comparison,
    Completion,
    GateAnswer,
    Judgement,
    Message,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
    Usage,
    Verdict,
    as_messages,
    conversation_id,
    usage,
)
from constitutional_ai.runs.rows import adapter

PROMPT = Prompt.of((Message("user", "Hi"),), "helpful", "test")


def said(text: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> Completion:
    return Completion(text, "m", "stop", prompt_tokens, completion_tokens)


def label_of(*judgements: Judgement) -> PreferenceLabel:
    comparison = Comparison("c", PROMPT, said("a"), said("b"))
    return PreferenceLabel("c", "digest", comparison, "multiple_choice", 0.5, judgements)


def test_a_prompts_id_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert PROMPT.id == "57e8a7d9685d2e58"


def test_a_prompts_id_is_its_conversation_and_nothing_else() -> None:
    assert Prompt.of(PROMPT.conversation, "red_team", "elsewhere", ("tag",)).id == PROMPT.id


@given(st.text(), st.text())
def test_two_conversations_share_no_id(one: str, other: str) -> None:
    ids = {conversation_id((Message("user", text),)) for text in (one, other)}
    assert len(ids) == len({one, other})


def test_roles_and_bounds_of_turns_are_part_of_the_id() -> None:
    talks = [
        (Message("user", "ab"),),
        (Message("system", "ab"),),
        (Message("user", "a"), Message("user", "b")),
        (Message("user", "a"), Message("assistant", "b")),
    ]
    assert len({conversation_id(talk) for talk in talks}) == len(talks)


def test_rows_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PROMPT.kind = "red_team"  # type: ignore[misc]


def test_a_chain_answers_with_its_last_revision_and_is_never_changed_in_place() -> None:
    chain = RevisionChain("r", "digest", Response("r", PROMPT, said("first")))
    once = chain.revised_by(Revision("p", None, said("second")))
    twice = once.revised_by(Revision("q", said("bad"), said("third")))
    assert [c.answer for c in (chain, once, twice)] == ["first", "second", "third"]
    assert [r.principle for r in twice.revisions] == ["p", "q"]


def test_a_chain_answers_with_the_last_revision_that_has_no_fault() -> None:
    chain = RevisionChain("r", "digest", Response("r", PROMPT, said("first")))
    for text, fault in (("second", None), ("third", "empty"), ("fourth", "identical")):
        chain = chain.revised_by(Revision("p", None, said(text), fault=fault))
    assert chain.answer == "second"
    assert RevisionChain("r", "digest", chain.initial, chain.revisions[1:]).answer == "first"


def test_a_revision_written_before_there_was_any_cleaning_is_read() -> None:
    row = asdict(Revision("p", said("bad"), said("better")))
    del row["cut"], row["fault"]
    assert adapter(Revision).validate_json(json.dumps(row)) == Revision("p", said("bad"), said("better"))


def test_a_judgement_written_before_its_tokens_were_counted_has_none() -> None:
    row = asdict(Judgement("p", "a", 0.5, "Hm."))
    del row["prompt_tokens"], row["completion_tokens"]
    assert adapter(Judgement).validate_json(json.dumps(row)).usage is None


def test_swapping_twice_changes_nothing() -> None:
    comparison = Comparison("c", PROMPT, said("a"), said("b"))
    assert (comparison.swapped().a.text, comparison.swapped().b.text) == ("b", "a")
    assert comparison.swapped().swapped() == comparison


@pytest.mark.parametrize(("shown_first", "probability_a"), [("a", 0.9), ("b", 0.1)])
def test_a_judgement_knows_which_answer_stood_first(shown_first: str, probability_a: float) -> None:
    assert Judgement("p", shown_first, 0.9).probability_a == pytest.approx(probability_a)


@pytest.mark.parametrize(
    ("asked", "flipped"),
    [  # (shown first, P(first is better)); a judge that always says (A) flips
        ([("a", 0.9), ("b", 0.9)], True),
        ([("a", 0.1), ("b", 0.1)], True),
        ([("a", 0.9), ("b", 0.2)], False),
        ([("a", 0.9)], None),
        ([("b", 0.9)], None),
        ([], None),
        # Means by order: a wins with (0.9 + 0.2) / 2 = 0.55, and with 1 - (0.4 + 0.2) / 2 = 0.7.
        ([("a", 0.9), ("a", 0.2), ("b", 0.4), ("b", 0.2)], False),
    ],
)
def test_flipped_is_when_the_orders_name_different_winners(
    asked: list[tuple[str, float]], flipped: bool | None
) -> None:
    assert label_of(*[Judgement("p", side, p) for side, p in asked]).flipped is flipped


@pytest.mark.parametrize(("better", "right"), [("a", 0.8), ("b", 0.2)])
def test_a_gate_answer_is_right_as_far_as_it_prefers_the_better(better: str, right: float) -> None:
    label = PreferenceLabel("c", "d", Comparison("c", PROMPT, said("a"), said("b")), "likelihood", 0.8, ())
    assert GateAnswer("c", label, better).probability_right == pytest.approx(right)


RESPONSE = Response("r", PROMPT, said("x", 100, 10))
JUDGED = PreferenceLabel(
    "c",
    "d",
    Comparison("c", PROMPT, said("x", 3, 1), said("y", 4, 2)),
    "votes",
    0.5,
    (
        Judgement("p", "a", 0.5, None, 5, 2),
        Judgement("p", "b", 0.5, None, 3, 1),
        Judgement("p", "a", 1),
    ),
)


@pytest.mark.parametrize(
    ("record", "cost"),
    [
        (said("x", 3, 1), Usage(3, 1)),
        (RESPONSE, Usage(100, 10)),
        (RevisionChain("r", "d", RESPONSE), Usage(0, 0)),  # the stage before paid for the response
        (RevisionChain("r", "d", RESPONSE, (Revision("p", None, said("x", 3, 1)),)), Usage(3, 1)),
        (RevisionChain("r", "d", RESPONSE, (Revision("p", said("c", 5, 2), said("x", 3, 1)),)), Usage(8, 3)),
        (Comparison("c", PROMPT, said("x", 3, 1), said("y", 4, 2)), Usage(7, 3)),
        (Answer("x", "start", RESPONSE, Verdict(False, None)), Usage(100, 10)),
        (JUDGED, Usage(8, 3)),  # and the stage before for the two answers
        (GateAnswer("c", JUDGED, "a"), Usage(8, 3)),
        (PROMPT, Usage(0, 0)),
    ],
)
def test_usage_counts_every_token_that_a_record_cost(record: object, cost: Usage) -> None:
    assert usage(record) == cost


def test_messages_for_others_are_dicts() -> None:
    assert as_messages(PROMPT.conversation) == [{"role": "user", "content": "Hi"}]
