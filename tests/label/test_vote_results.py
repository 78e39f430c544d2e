"""Numbers that people's answers give."""

from __future__ import annotations

from pathlib import Path

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.label.label_questions import Choice, Rating, Review, Winner
from constitutional_ai.label.vote_results import measure_votes
from constitutional_ai.metrics.elo import elo
from constitutional_ai.records import Match, Metric
from tests.label.study_fixtures import harm, pair, revision, study


def by_name(metrics: list[Metric], who: str = "people") -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics if metric.model == who}


def test_choices_give_the_elo_that_matches_give(tmp_path: Path) -> None:
    of = study(tmp_path, "pairs", [pair(n) for n in range(40)], ["anna", "ben"])
    said: list[str] = []
    for n in range(40):
        winner: Winner = "b" if n % 4 else "a"
        of.add_answer(pair(n).id, "anna", Choice(winner, 2), "a")
        of.add_answer(pair(n).id, "ben", Choice("tie" if n % 2 else "both_bad"), "a")
    metrics = measure_votes(of, None, said.append)
    rating = by_name(metrics, "rl-cai")["elo.harmlessness"]
    wins = [Match(str(n), str(n), "sl-cai", "rl-cai", "b" if n % 4 else "a") for n in range(40)]
    # 30 of 40 wins: 400 · log10(3) = 191
    assert (
        rating.value
        == pytest.approx(elo(wins, anchor="sl-cai")["rl-cai"].elo.value)
        == pytest.approx(190.8, abs=0.1)
    )
    assert rating.count == 40 and rating.clusters == 40
    assert by_name(metrics, "sl-cai")["elo.harmlessness"].value == 0
    people = by_name(metrics)
    assert (people["ties"].value, people["both_bad"].value, people["ties"].count) == (0.25, 0.25, 80)
    assert people["first_shown_wins"].value == 0.25 and people["first_shown_wins"].count == 40
    assert people["longer_wins"].value == 0.75
    assert people["agreement"].count == 40 and (people["agreement"].value or 0) < 0
    assert [m.value for m in metrics if m.name == "answers"] == [40, 40] and said == []


def test_the_two_tests_are_rated_apart_and_pairs_of_one_model_not_at_all(tmp_path: Path) -> None:
    mixed = [*[pair(n, "helpful") for n in range(4)], *[pair(n) for n in range(4, 8)]]
    of = study(tmp_path / "two", "pairs", mixed)
    for n, each in enumerate(mixed):
        of.add_answer(each.id, "anna", Choice("a" if n % 2 else "b", 1), "a")
    elos = [m.name for m in measure_votes(of, None, print) if m.name.startswith("elo")]
    assert set(elos) == {"elo.helpfulness", "elo.harmlessness"}
    of = study(tmp_path / "one", "pairs", [pair(0, a="sl-cai", b="sl-cai")])
    of.add_answer(pair(0, a="sl-cai", b="sl-cai").id, "anna", Choice("a", 1), "a")
    said: list[str] = []
    assert not [m for m in measure_votes(of, None, said.append) if m.name.startswith("elo")]
    assert said == ["no Elo: both replies of every pair are by one model."]


def test_harm_is_a_mean_over_people_and_prompts(tmp_path: Path) -> None:
    of = study(tmp_path, "harm", [harm(n) for n in range(4)], ["anna", "ben"])
    for n in range(4):
        for person, extra in (("anna", 0), ("ben", 1)):
            of.add_answer(harm(n).id, person, Rating(n % 2 + extra), None)
    rating = by_name(measure_votes(of, None, print), "start")["harmfulness"]
    assert rating.value == 1.0 and rating.count == 8 and rating.clusters == 4


def test_reviews_are_shares(tmp_path: Path) -> None:
    of = study(tmp_path, "revisions", [revision(n) for n in range(4)])
    for n, review in enumerate([Review("accept"), Review("accept"), Review("edit", "x"), Review("reject")]):
        of.add_answer(revision(n).id, "anna", review, None)
    people = by_name(measure_votes(of, None, print))
    assert [people[name].value for name in ("accepted", "edited", "rejected")] == [0.5, 0.25, 0.25]


def test_without_answers_or_with_an_unknown_anchor_a_sentence_says_so(tmp_path: Path) -> None:
    of = study(tmp_path, "pairs", [pair(0)])
    with pytest.raises(InputError, match="nobody has answered"):
        measure_votes(of, None, print)
    of.add_answer(pair(0).id, "anna", Choice("a", 1), "a")
    with pytest.raises(InputError, match="--anchor to one of: rl-cai, sl-cai"):
        measure_votes(of, "start", print)
