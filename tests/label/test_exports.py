"""Answers in the forms that other commands and tools read: read back by those commands' own readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.pairs import load_decided_pairs, load_pairs
from constitutional_ai.data.ratings import load_ratings
from constitutional_ai.errors import InputError
from constitutional_ai.label.exports import FORMS_OF_TASKS, write_export
from constitutional_ai.label.label_questions import Choice, Rating, Review
from constitutional_ai.label.other_tools import read_choices
from constitutional_ai.label.study import Study
from constitutional_ai.records import Match, RevisionChain
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.sl_cai.finetune import examples
from tests.label.study_fixtures import harm, pair, revision, study
from tests.report.conftest import chain, prompt


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def voted(folder: Path) -> Study:
    """Four pairs: b wins twice over a, the two people differ, both find a tie, nobody answers."""
    of = study(folder, "pairs", [pair(n) for n in range(4)], ["anna", "ben"])
    for person in ("anna", "ben"):
        of.add_answer(pair(0).id, person, Choice("b", 3 if person == "anna" else 1), "a")
        of.add_answer(pair(1).id, person, Choice("a" if person == "anna" else "b", 2), "b")
        of.add_answer(pair(2).id, person, Choice("tie" if person == "anna" else "both_bad"), "b")
    return of


def test_matches_are_records_of_matches(tmp_path: Path) -> None:
    write_export(voted(tmp_path / "study"), "matches", out := tmp_path / "matches.jsonl")
    rows = lines(out)
    assert {row.pop("test") for row in rows} == {"harmlessness"}
    matches = [Match(**row) for row in rows]
    assert [match.winner for match in matches] == ["b", "a", "tie", "b", "b", "tie"]
    assert {(match.a, match.b) for match in matches} == {("sl-cai", "rl-cai")}
    assert list(read_rows(out, Match)) == matches


def test_pairs_are_read_by_the_judge(tmp_path: Path) -> None:
    write_export(voted(tmp_path / "study"), "judge", out := tmp_path / "pairs.jsonl")
    pairs = load_pairs(out, prefer="safer").usable
    assert [(p.chosen, p.strength) for p in pairs] == [
        (pair(0).reply_b, 2),
        (pair(1).reply_a, 0),
        (pair(2).reply_a, 0),
    ]
    decided = load_decided_pairs(out)
    assert len(decided.usable) == 1 and decided.unusable == {"a tie": 2}
    assert decided.usable[0].conversation == pair(0).prompt.conversation


def test_ratings_are_read_by_harmfulness(tmp_path: Path) -> None:
    of = study(tmp_path / "study", "harm", [harm(0), harm(1)], ["anna", "ben"])
    of.add_answer(harm(0).id, "anna", Rating(4), None)
    of.add_answer(harm(0).id, "ben", Rating(1), None)
    of.add_answer(harm(1).id, "anna", Rating(0), None)
    write_export(of, "harmfulness", out := tmp_path / "ratings.jsonl")
    assert [(r.rating, r.conversation[-1].content) for r in load_ratings(out).usable] == [
        (2.5, "Reply 0."),
        (0, "Reply 1."),
    ]


def test_accepted_revisions_are_rows_of_the_training_data(tmp_path: Path) -> None:
    of = study(tmp_path / "study", "revisions", [revision(n) for n in range(5)], ["anna", "ben", "cora"])
    reviews = {
        0: [Review("accept")],
        1: [Review("edit", "Mine."), Review("reject"), Review("accept")],
        2: [Review("reject")],
        3: [Review("accept"), Review("reject")],
    }
    for n, given in reviews.items():
        for person, review in zip(("anna", "ben", "cora"), given, strict=False):
            of.add_answer(revision(n).id, person, review, None)
    write_export(of, "dataset", out := tmp_path / "data.jsonl")
    rows = lines(out)
    assert [row["completion"][0]["content"] for row in rows] == ["After 0.", "Mine."]
    (like,) = examples([chain(prompt("x"))], [])
    assert rows[0].keys() == like.keys() and rows[0]["source"] == like["source"]
    assert (
        isinstance(chain(prompt("x")), RevisionChain)
        and like["id"].endswith("/r1")
        and rows[0]["id"].endswith("/r1")
    )


def test_a_form_that_does_not_fit_and_a_file_that_exists_are_refused(tmp_path: Path) -> None:
    of = voted(tmp_path / "study")
    with pytest.raises(InputError, match="--to to one of: matches, judge, label-studio, potato"):
        write_export(of, "dataset", tmp_path / "x")
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="exists already"):
        write_export(of, "judge", tmp_path / "x")
    with pytest.raises(InputError, match="nothing to write as matches"):
        write_export(study(tmp_path / "empty", "pairs", [pair(0)]), "matches", tmp_path / "y")
    assert {form for forms in FORMS_OF_TASKS.values() for form in forms} == {
        "compare",
        "pairs",
        "harm",
        "revisions",
    }


# -- other tools


def test_label_studio_gets_our_choices_and_gives_its_own(tmp_path: Path) -> None:
    of = voted(tmp_path / "study")
    write_export(of, "label-studio", out := tmp_path / "tasks.json")
    tasks = json.loads(out.read_text())
    assert "sl-cai" not in out.read_text() and pair(0).id not in out.read_text() and len(tasks) == 4
    assert read_choices(of, "label-studio", out) == f"0 of 6 choices in {out} are new in {of.folder}"
    task = tasks[3]
    first = task["data"]["first"]
    result = {"from_name": "choice", "to_name": "first", "type": "choices", "value": {"choices": ["first-2"]}}
    task["annotations"] = [
        {"id": 1, "completed_by": 10, "was_cancelled": False, "result": [{"id": "x1", **result}]},
        {"id": 2, "completed_by": {"id": 3, "email": "c@example.org"}, "result": [result]},
        {"id": 3, "completed_by": 11, "was_cancelled": True, "result": []},
    ]
    out.write_text(json.dumps(tasks))
    assert read_choices(of, "label-studio", out).startswith("2 of 8 choices")
    added = [vote for vote in of.votes() if vote.question == pair(3).id]
    assert [vote.person for vote in added] == ["label-studio-10", "label-studio-c@example.org"]
    assert {vote.answer for vote in added} == {Choice("a" if first == pair(3).reply_a else "b", 2)}


def test_potato_gets_items_and_gives_places_on_a_scale(tmp_path: Path) -> None:
    of = study(tmp_path / "study", "pairs", [pair(n) for n in range(8)])
    write_export(of, "potato", out := tmp_path / "items.jsonl")
    items = lines(out)
    assert len({item["responses"][0][:2] for item in items}) == 2
    scales = [-3 if item["responses"][0] == pair(n).reply_a else 3 for n, item in enumerate(items[:7])] + [0]
    labels = {
        item["id"]: [
            [{"schema": "preference", "name": "scale_value"}, str(scale)],
            [{"schema": "x", "name": "y"}, "1"],
        ]
        for item, scale in zip(items, scales, strict=True)
    }
    state = tmp_path / "user_state.json"
    state.write_text(json.dumps({"user_id": "dora", "instance_id_to_label_to_value": labels}))
    assert read_choices(of, "potato", state).startswith("8 of 8 choices")
    assert [vote.answer for vote in of.votes()] == [Choice("a", 3)] * 7 + [Choice("tie")]


def potato_state(number: str, value: str) -> str:
    label = {"schema": "preference", "name": "scale_value"}
    return json.dumps({"user_id": "x", "instance_id_to_label_to_value": {number: [[label, value]]}})


BROKEN = [
    ("label-studio", "{"),
    ("label-studio", "{}"),
    ("label-studio", '[{"data": {}, "annotations": [{"result": []}]}]'),
    ("potato", "[]"),
    ("potato", potato_state("1", "9")),
    ("potato", potato_state("99", "1")),
    ("potato", "[" * 100_000),
]


@pytest.mark.parametrize(("form", "text"), BROKEN)
def test_a_file_that_is_not_theirs_adds_nothing(tmp_path: Path, form: str, text: str) -> None:
    of = study(tmp_path / "study", "pairs", [pair(0)])
    (tmp_path / "file").write_text(text)
    if text == "{}":
        assert read_choices(of, form, tmp_path / "file").startswith("0 of 0")
        return
    with pytest.raises(InputError, match="file"):
        read_choices(of, form, tmp_path / "file")
    assert of.votes() == []
