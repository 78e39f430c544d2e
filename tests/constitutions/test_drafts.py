from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.constitutions.clauses import Clause
from constitutional_ai.constitutions.constitution import Constitution, Principle, load_constitution
from constitutional_ai.constitutions.drafts import EXAMPLES, candidate, drafts_file, request, sifted, stub
from constitutional_ai.errors import InputError

CLAUSE = Clause("Values > Being kind ¶2", 31, "The assistant should be kind\u2028to people.")
REPLY = """\
Sure!
**CRITIQUE:** "Say which parts of your last reply are unkind."
Revision: Write your reply again so that it is kind.
- PREFERENCE: Which of these replies is kinder?
UPHELD: You are a kind assistant.
BROKEN: You are an unkind assistant.
"""


def test_a_reply_is_read_whatever_its_marks() -> None:
    draft = candidate(CLAUSE, "a.md", 1, REPLY)
    assert draft is not None
    assert draft.texts == {
        "critique": "Say which parts of your last reply are unkind.",
        "revision": "Write your reply again so that it is kind.",
        "preference": "Which of these replies is kinder?",
        "upheld": "You are a kind assistant.",
        "broken": "You are an unkind assistant.",
    }
    assert draft.draft
    assert draft.source == CLAUSE.anchor("a.md")
    one_sided = candidate(CLAUSE, "a.md", 1, REPLY.replace("BROKEN", "BENT"))
    assert one_sided is not None
    assert one_sided.upheld is None


@pytest.mark.parametrize(
    "reply", ["", "I can't help.", REPLY.replace("Revision", "Rewrite"), "CRITIQUE: a\n" * 3]
)
def test_a_reply_without_all_three_sides_is_no_candidate(reply: str) -> None:
    assert candidate(CLAUSE, "a.md", 1, reply) is None


def test_candidates_with_findings_copies_and_repetitions_are_dropped() -> None:
    def draft(number: int, **texts: str) -> Principle | None:
        lines = {
            "critique": "Is it rude?",
            "revision": f"Make it {number}.",
            "preference": f"Which is nicer, {number}?",
        }
        return candidate(CLAUSE, "a.md", number, "\n".join(f"{k}: {v}" for k, v in (lines | texts).items()))

    lettered = draft(2, preference="Is answer A better?")
    copied = draft(3, **{side: text for side, text in EXAMPLES[0].items() if side != "clause"})
    again = draft(4, preference="Which is nicer, 1!")
    kept, counts = sifted([[draft(1), lettered, None], [copied, again, draft(5, preference="Who is gentler?")]])
    assert [[p.name for p in of_clause] for of_clause in kept] == [
        ["being-kind-2-l31-1"],
        ["being-kind-2-l31-5"],
    ]
    assert counts == {
        "kept": 2,
        "option letter": 1,
        "unreadable": 1,
        "copies the example": 1,
        "near-duplicate": 1,
    }


def test_a_file_of_drafts_is_no_constitution_until_somebody_has_read_it(tmp_path: Path) -> None:
    draft = candidate(CLAUSE, "a.md", 1, REPLY)
    assert draft is not None
    other = Clause("Values ¶9", 40, "Be fair.")
    path = tmp_path / "drafts.yaml"
    path.write_text(drafts_file("a.md", [CLAUSE, other], [[draft], [stub(other, "a.md")]]), encoding="utf-8")
    with pytest.raises(InputError, match=r"is a draft\. Edit it and delete its line 'draft: true'"):
        load_constitution(path)
    assert load_constitution(path, drafts=True).principles == (draft, stub(other, "a.md"))
    edited, _, _ = path.read_text(encoding="utf-8").replace("    draft: true\n", "").partition("  # Values ¶9")
    path.write_text(edited, encoding="utf-8")
    assert load_constitution(path).principles == (draft.model_copy(update={"draft": False}),)
    with pytest.raises(ValueError, match="is a draft"):
        Constitution(name="mine", principles=(draft,))


@given(st.text(min_size=1, max_size=80), st.text(max_size=200))
def test_no_clause_leaves_its_comment(label: str, text: str) -> None:
    clause = Clause(label, 1, f"{text} ¶")
    file = drafts_file("a.md", [clause], [[Principle(name="a", draft=True)]])
    assert yaml.safe_load(file)["principles"] == [{"name": "a", "draft": True}]
    assert clause.text in request(clause)
