"""A study's file: what is in it stays, and only the answers that count are counted."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.label.label_questions import Choice, Rating
from constitutional_ai.label.settings import Settings
from constitutional_ai.label.study import FILE, Study
from tests.label.study_fixtures import harm, pair, study, talk_study


def test_a_study_that_is_opened_again_has_its_links_seed_and_answers(tmp_path: Path) -> None:
    first = study(tmp_path, "pairs", [pair(n) for n in range(3)], ["anna", "ben"])
    first.add_answer(pair(0).id, "anna", Choice("a", 2), "b")
    links = [person.token for person in first.people()]
    first.close()
    again = Study.begin(tmp_path, Settings("pairs", 99, "a test"), [pair(8)])
    assert [person.token for person in again.add_people(["ben", "cora"])][:2] == links
    assert again.settings.seed == 7 and [q.question for q in again.questions()] == [pair(n) for n in range(3)]
    (vote,) = again.votes()
    assert (vote.question, vote.person, vote.answer, vote.shown_first) == (
        pair(0).id,
        "anna",
        Choice("a", 2),
        "b",
    )


def test_every_answer_is_synced_and_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    with_tokens = study(tmp_path, "pairs", [pair(0)])
    assert with_tokens._file.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_of_answers_to_a_stored_question_the_last_one_counts(tmp_path: Path) -> None:
    rated = study(tmp_path, "harm", [harm(0), harm(1)])
    for rating in (3, 1):
        rated.add_answer(harm(0).id, "anna", Rating(rating), None)
    assert [vote.answer for vote in rated.votes()] == [Rating(1)]
    assert rated.progress("anna") == (1, 2) and rated.next_number("anna") == 2
    assert rated.previous_number("anna", 2) == 1 and rated.next_number("ben") == 1


def test_of_answers_in_a_conversation_the_first_one_counts(tmp_path: Path) -> None:
    talks = talk_study(tmp_path)
    for choice in (Choice("a", 3), Choice("b", 3)):
        talks.add_answer("anna.1.1", "anna", choice, "a")
    assert [vote.answer for vote in talks.votes()] == [Choice("a", 3)]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    study(tmp_path, "pairs", [pair(0)])
    with pytest.raises(InputError, match=r"holds other labels \(task pairs.*--out"):
        Study.begin(tmp_path, Settings("harm", 7, "a test"), [])


def test_what_is_no_study_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labels in"):
        Study(tmp_path)
    (tmp_path / FILE).write_text("no database, but long enough to be taken for one" * 100)
    with pytest.raises(InputError, match="is not a file of labels"):
        Study(tmp_path)


def test_a_kill_before_a_study_is_whole_leaves_none(tmp_path: Path) -> None:
    def dying():
        yield pair(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Study.begin(tmp_path, Settings("pairs", 7, "a test"), dying())
    assert not (tmp_path / FILE).exists()
    assert len(list(study(tmp_path, "pairs", [pair(0), pair(1)]).questions())) == 2
