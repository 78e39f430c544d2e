from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.errors import InputError
from constitutional_ai.records import (
    Comparison,
    Completion,
    Kind,
    Message,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
)
from constitutional_ai.rl_cai.preference_model.training_pairs import (
    conversations,
    examples,
    held_out,
    helpfulness,
    over_refusals,
)

PROMPT = Prompt.of((Message("user", "Hi"),), "red_team", "test")
GOOD = {"conversation": [{"role": "user", "content": "Hi"}], "chosen": "Hello!", "rejected": "What?"}


def labelled(probability_a: float) -> PreferenceLabel:
    a, b = Completion("A", "m", "stop", 0, 0), Completion("B", "m", "stop", 0, 0)
    comparison = Comparison("p.0", PROMPT, a, b)
    return PreferenceLabel("p.0", "digest", comparison, "multiple_choice", probability_a, ())


REFUSAL = "I won't help you bake bread, because it is dangerous."
ANSWER = "Mix flour, water, salt and yeast, and let it rise."


def revised(kind: Kind, before: str, after: str) -> RevisionChain:
    first, second = [Completion(text, "m", "stop", 0, 0) for text in (before, after)]
    prompt = Prompt.of((Message("user", "How do I bake bread?"),), kind, "test")
    return RevisionChain("p.0", "digest", Response("p.0", prompt, first), (Revision("p", None, second),))


@pytest.mark.parametrize("kind", ["helpful", "borderline"])
def test_an_answer_to_a_harmless_prompt_is_preferred_to_its_revision_that_refuses(kind: Kind) -> None:
    (row,) = over_refusals([revised(kind, ANSWER, REFUSAL)])
    assert (row["source"], row["p_chosen"], row["tie"]) == ("harmless", 1.0, False)
    assert [row[side][0]["content"] for side in ("chosen", "rejected")] == [ANSWER, REFUSAL]


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param(revised("red_team", ANSWER, REFUSAL), id="a prompt that asks for harm"),
        pytest.param(revised("helpful", ANSWER, "Use less salt, and bake it longer."), id="both help"),
        pytest.param(revised("helpful", REFUSAL, REFUSAL), id="both refuse"),
        pytest.param(revised("helpful", "bread " * 40, REFUSAL), id="the answer loops"),
    ],
)
def test_other_revisions_make_no_pair(chain: RevisionChain) -> None:
    assert over_refusals([chain]) == []


def test_a_label_becomes_a_row_with_its_soft_target() -> None:
    (row,) = examples([labelled(0.75)])
    assert row == {
        "id": "p.0",
        "prompt_id": PROMPT.id,
        "source": "ai",
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "A"}],
        "rejected": [{"role": "assistant", "content": "B"}],
        "p_chosen": 0.75,
        "tie": False,
    }
    assert conversations(row) == tuple(
        (Message("user", "Hi"), Message("assistant", said)) for said in ("A", "B")
    )


@pytest.mark.parametrize(
    ("probability_a", "chosen", "p_chosen", "tie"),
    [
        (1.0, "A", 1.0, False),
        (0.25, "B", 0.75, False),
        (0.0, "B", 1.0, False),
        (0.5, "A", 0.5, True),
        ((0.9 + (1 - 0.9)) / 2 - 1e-16, "B", 0.5, True),  # an average over principles, rounded
    ],
)
def test_the_likelier_answer_is_chosen_and_a_tie_is_marked(
    probability_a: float, chosen: str, p_chosen: float, tie: bool
) -> None:
    (row,) = examples([labelled(probability_a)])
    assert (row["chosen"][0]["content"], row["tie"]) == (chosen, tie)
    assert row["p_chosen"] == pytest.approx(p_chosen)
    assert {row["chosen"][0]["content"], row["rejected"][0]["content"]} == {"A", "B"}


def written(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_peoples_comparisons_are_certain_and_drawn_by_the_seed(tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.jsonl", *[{**GOOD, "chosen": f"Hello {n}!"} for n in range(20)])
    everything = helpfulness(file, None, 0).rows
    assert len({row["id"] for row in everything}) == 20
    assert {(row["p_chosen"], row["tie"], row["source"]) for row in everything} == {(1.0, False, "people")}
    assert helpfulness(file, 5, 0).rows == everything[:5] != helpfulness(file, 5, 1).rows
    assert helpfulness(file, 0, 0).rows == []


def test_files_of_others_are_read_and_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    ours = helpfulness(written(tmp_path / "ours.jsonl", GOOD), None, 0)
    dialogue = "\n\nHuman: Hi\n\nAssistant: "
    hh = {"chosen": dialogue + "Hello!", "rejected": dialogue + "What?"}
    tie = {"prompt": "Hi", "chosen": "Hello!", "rejected": "Hello!"}
    theirs = helpfulness(written(tmp_path / "hh.jsonl", hh, tie), None, 0)
    assert theirs.rows == ours.rows
    assert (ours.unusable, theirs.unusable) == ({}, {"both replies are the same": 1})
    zipped = tmp_path / "hh.jsonl.gz"
    zipped.write_bytes(gzip.compress((tmp_path / "hh.jsonl").read_bytes()))
    assert helpfulness(str(zipped), None, 0) == theirs


def test_ties_and_weak_preferences_of_people_are_left_out_and_counted(tmp_path: Path) -> None:
    """PM-5. HelpSteer's form gives the strength a sign: which side is which is said by chosen and rejected here."""
    strengths: list[dict[str, float]] = [{"strength": 0}, {"strength": 1}, {"preference_strength": -2}, {}]
    rows = [{**GOOD, "chosen": f"Hello {n}!", **strength} for n, strength in enumerate(strengths)]
    file = written(tmp_path / "pairs.jsonl", *rows)
    for limit, used, why in ((0.0, {1, 2, 3}, "0"), (1.0, {2, 3}, "1"), (2.0, {3}, "2")):
        found = helpfulness(file, None, 0, stronger_than=limit)
        assert {row["chosen"][0]["content"] for row in found.rows} == {f"Hello {n}!" for n in used}
        weak = {f"a preference no stronger than {why}": 3 - len(used)} if len(used) < 3 else {}
        assert found.unusable == {"a tie": 1, **weak}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"conversation": []', ":1: not JSON"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "chosen"}).encode(), ":1: chosen: is missing"),
        (json.dumps(GOOD).encode() + b"\n[]\n", ":2: "),
        (b"\xff", "not UTF-8"),
        (json.dumps({**GOOD, "conversation": []}).encode(), "1 × no reply to a human turn"),
        (json.dumps({**GOOD, "chosen": ""}).encode(), "1 × an empty turn"),
    ],
)
def test_a_bad_file_of_comparisons_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        helpfulness(str(path), None, 0)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_comparisons_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'.*nowhere\.jsonl'"):
        helpfulness(str(tmp_path / "nowhere.jsonl"), None, 0)


def pairs(count: int, prompts: int, source: str, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"{source}{n}", "prompt_id": f"p{first + n % prompts}", "source": source} for n in range(count)
    ]


def test_a_share_of_each_sources_prompts_is_held_out() -> None:
    """The split is by prompt: two pairs of one prompt are on one side."""
    rows = pairs(40, 20, "ai") + pairs(30, 30, "people", first=100)
    out, rest = held_out(rows, 0.1, seed=0)
    assert sorted(r["source"] for r in out) == ["ai"] * 4 + ["people"] * 3
    assert len(out) + len(rest) == 70
    assert held_out(rows, 0.1, seed=0) == (out, rest) != held_out(rows, 0.1, seed=1)


def test_too_few_prompts_hold_none_out() -> None:
    assert held_out(pairs(4, 4, "ai"), 0.1, seed=0) == ([], pairs(4, 4, "ai"))
    assert held_out([], 0.1, seed=0) == ([], [])


@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 30), st.floats(0, 0.99), st.integers(0, 9))
def test_no_prompt_is_on_both_sides(ai: int, prompts: int, people: int, share: float, first: int) -> None:
    """Also when the sources share prompts."""
    rows = pairs(ai, prompts, "ai") + pairs(people, 7, "people", first)
    out, rest = held_out(rows, share, seed=0)
    assert not {r["prompt_id"] for r in out} & {r["prompt_id"] for r in rest}
    assert sorted(r["id"] for r in out + rest) == sorted(r["id"] for r in rows)
