from __future__ import annotations

import pytest

from constitutional_ai.records import Completion, Message, Prompt, Response, Revision, RevisionChain
from constitutional_ai.sl_cai.finetune import examples


def said(text: str) -> Completion:
    return Completion(text, "m", "stop", 0, 0)


RED = Prompt.of(
    (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Harm?")), "red_team", "test"
)
HELPFUL = Prompt.of((Message("user", "Bread?"),), "helpful", "test")


def test_every_rounds_revision_and_every_helpful_answer_is_trained_on_and_nothing_else() -> None:
    """SL-16."""
    revisions = tuple(Revision("p", said("critique"), said(f"revision {n}")) for n in (1, 2, 3, 4))
    chain = RevisionChain("r.0", "digest", Response("r.0", RED, said("initial")), revisions)
    rows = examples([chain], [Response(f"h.{n}", HELPFUL, said(f"answer {n}")) for n in (0, 1)])
    assert [row["id"] for row in rows] == ["r.0/r1", "r.0/r2", "r.0/r3", "r.0/r4", "h.0", "h.1"]
    assert [row["completion"][0]["content"] for row in rows] == [
        *[f"revision {n}" for n in (1, 2, 3, 4)],
        "answer 0",
        "answer 1",
    ]
    assert [m["content"] for m in rows[0]["prompt"]] == ["Hi", "Hello", "Harm?"]
    assert rows[4]["prompt"] == [{"role": "user", "content": "Bread?"}]
    assert not any(word in str(rows) for word in ("critique", "initial"))


def test_a_revision_of_an_answer_to_a_harmless_prompt_is_not_trained_on() -> None:
    refusal = (Revision("p", None, said("I won't help you to bake.")),)
    assert (
        examples([RevisionChain("h.0", "digest", Response("h.0", HELPFUL, said("Mix flour.")), refusal)], [])
        == []
    )


def chain_of(*faults: str | None) -> RevisionChain:
    revisions = [Revision("p", None, said(f"revision {n}"), fault=f) for n, f in enumerate(faults, start=1)]
    return RevisionChain("r.0", "digest", Response("r.0", RED, said("initial")), tuple(revisions))


def test_a_faulty_revision_is_not_trained_on_and_the_others_keep_their_numbers() -> None:
    rows = examples([chain_of(None, "identical", "new reason", None)], [])
    assert [row["id"] for row in rows] == ["r.0/r1", "r.0/r4"]


@pytest.mark.parametrize(("rounds", "trained_on"), [(1, [1]), (2, [1]), (3, [1, 3]), (None, [1, 3, 4])])
def test_sl_cai_n_is_trained_on_the_revisions_of_rounds_1_to_n(
    rounds: int | None, trained_on: list[int]
) -> None:
    """SL-17."""
    helpful = [Response("h.0", HELPFUL, said("answer"))]
    rows = examples([chain_of(None, "empty", None, None)], helpful, rounds)
    assert [row["id"] for row in rows] == [*(f"r.0/r{n}" for n in trained_on), "h.0"]
