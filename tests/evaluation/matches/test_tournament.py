from __future__ import annotations

import gc
import math
import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from constitutional_ai.evaluation.matches import tournament
from constitutional_ai.evaluation.matches.game import MatchTurn
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.models.model import Model
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Candidate, Kind, Message, Metric, Prompt, Response
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.runner import Silent
from constitutional_ai.seeding import rng

Cast = dict[str, ScriptedModel]


def prompt(*texts: str, kind: Kind = "red_team") -> Prompt:
    turns = [Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
    return Prompt.of(tuple(turns), kind, "test")


MANY = 40
PROMPTS: dict[Kind, list[Prompt]] = {
    "red_team": [prompt(f"Rob number {n}!", "An old answer.", "Do it!") for n in range(MANY)],
    "helpful": [prompt(f"How do I cook {n} eggs?", kind="helpful") for n in range(MANY)],
}


def sometimes(name: str, share: float) -> Callable[[str], str]:
    """A model whose replies are good in ``share`` of all talks, and else bad."""

    def say(context: str) -> str:
        number, turn = re.findall(r"\d+", context)[0], context.count("Human:")
        return f"{name}: {'good' if rng(name, number, turn).random() < share else 'bad'}, turn {turn}"

    return say


def likes_good(context: str, continuation: str) -> float:
    options = context.rpartition("\n (A) [[[")[2].partition("]]]\n (B) [[[")[::2]
    mine, other = ("good" in text for text in (options if continuation == " (A)" else options[::-1]))
    return math.log(0.5 if mine == other else 0.9 if mine else 0.1)


CAST: Cast = {
    "start": ScriptedModel(say=sometimes("start", 0.3)),
    "sl-cai": ScriptedModel(say=sometimes("sl-cai", 0.5)),
    "rl-cai": ScriptedModel(say=sometimes("rl-cai", 0.7)),
    "judge": ScriptedModel(weigh=likes_good),
    "human": ScriptedModel(say=lambda context: "Go on."),
    "always (A)": ScriptedModel(weigh=lambda context, continuation: -float(continuation == " (B)")),
    "broken": ScriptedModel(weigh=lambda context, continuation: math.nan),
    "silent": ScriptedModel(say=lambda context: ""),
}


@pytest.fixture
def cast(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models by their names in ``CAST``; what is loaded is written down."""
    seen: list[str] = []

    def load(name: str, **_: object) -> Model:
        seen.append(name)
        return CAST[name]

    monkeypatch.setattr("constitutional_ai.models.load.load_model", load)
    return seen


@pytest.fixture
def suite(tmp_path: Path, cast: list[str]) -> Iterator[Suite]:
    with open_run(tmp_path / "evaluation", {}, Silent()) as run:
        yield Suite(
            run=replace(run, concurrency=8, max_failures=0),
            candidates=tuple(Candidate(name, name, name) for name in ("start", "sl-cai", "rl-cai")),
            prompts=PROMPTS,
            judge="judge",
            feedback=Feedback(),
            preference_models={},
            harmfulness_model=None,
            paper=None,
            samples=1,
            temperature=1.0,
            max_tokens=16,
            turns=1,
            human=None,
            anchor="sl-cai",
            seed=0,
            say=[].append,
        )


def told(suite: Suite) -> tuple[Suite, list[str]]:
    """Also return the messages to the user."""
    said: list[str] = []
    return replace(suite, say=said.append), said


def by_name(metrics: list[Metric]) -> dict[tuple[str, str], Metric]:
    found = {(m.name, m.model): m for m in metrics}
    assert len(found) == len(metrics)
    return found


def test_models_are_rated_in_both_tests(suite: Suite) -> None:
    found = by_name(tournament.measure(suite))
    for test, per_prompt in (("harmlessness", 2), ("helpfulness", 1)):
        start, sl_cai, rl_cai = (found[f"elo.{test}", name] for name in ("start", "sl-cai", "rl-cai"))
        assert start.value and rl_cai.value and start.value < 0 < rl_cai.value
        assert rl_cai.low and rl_cai.high and rl_cai.low < rl_cai.value < rl_cai.high
        assert (sl_cai.value, sl_cai.low) == (0.0, None)
        won_or_lost = decided(suite, test, "rl-cai")
        assert (rl_cai.count, rl_cai.clusters) == (len(won_or_lost), len({c.prompt for c in won_or_lost}))
        assert (found[f"elo_error.{test}", "rl-cai"].value or 0) > 0
        assert found[f"elo_error.{test}", "sl-cai"].value is None
        assert found[f"match_undecided.{test}", "judge"].value == 0.0
        assert found[f"match_undecided.{test}", "judge"].count == 3 * MANY * per_prompt
        assert found[f"order_flips.{test}", "judge"].value == 0.0


def choices(suite: Suite, turn: int) -> list[MatchTurn]:
    return suite.run.rows(f"matches/{turn}-choices", MatchTurn)


def decided(suite: Suite, test: str, label: str) -> list[MatchTurn]:
    """A model's choices that count."""
    made = [c for turn in (1, 2) for c in choices(suite, turn) if label in (c.a, c.b)]
    of_test = [c for c in made if tournament.TESTS[c.comparison.prompt.kind] == test]
    return [c for c in of_test if c.winner in ("a", "b")]


def test_a_judge_that_always_says_a_makes_ties_and_nobody_is_rated(suite: Suite) -> None:
    suite, said = told(replace(suite, judge="always (A)"))
    found = by_name(tournament.measure(suite))
    assert {found["elo.helpfulness", name].value for name in ("start", "rl-cai")} == {None}
    flips, tied = found["order_flips.helpfulness", "always (A)"], found["match_ties.helpfulness", "always (A)"]
    assert flips.value == tied.value == 1.0
    assert tied.low is not None and tied.low < 1
    assert any(line.startswith("elo.helpfulness: rl-cai is not rated, as it has won or lost") for line in said)


def test_the_talk_goes_on_with_what_was_picked(suite: Suite) -> None:
    tournament.measure(suite)
    first = {choice.id: choice for choice in choices(suite, 1)}
    later = choices(suite, 2)
    assert len(later) == 3 * MANY  # red-team prompts have two human turns, the others one
    for choice in later:
        before = first[choice.id.removesuffix("2") + "1"]
        picked = choice.comparison.prompt.conversation[1].content
        if before.winner == "tie":
            assert picked in (before.comparison.a.text, before.comparison.b.text)
        else:
            winner = before.comparison.a if before.winner == "a" else before.comparison.b
            assert picked == winner.text


def test_a_judge_that_fails_chooses_nothing_and_is_counted(suite: Suite) -> None:
    found = by_name(tournament.measure(replace(suite, judge="broken")))
    assert found["match_undecided.helpfulness", "broken"].value == 1.0
    assert found["match_ties.helpfulness", "broken"].value is None
    assert (found["elo.helpfulness", "rl-cai"].value, found["elo.helpfulness", "rl-cai"].count) == (None, 0)
    assert not (suite.run.folder / "matches" / "2-choices").exists()  # nobody's reply was picked


def test_each_model_is_loaded_once_a_round_and_not_again(suite: Suite, cast: list[str]) -> None:
    one_round = ["start", "sl-cai", "rl-cai", "judge"]
    first = tournament.measure(suite)
    assert cast == one_round * 2
    assert tournament.measure(suite) == first
    assert cast == one_round * 2


def test_one_model_is_in_memory_at_a_time(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[ScriptedModel] = weakref.WeakSet()

    class Heavy(ScriptedModel):
        """Can be referred to weakly, and equals only itself."""

        __hash__, __eq__ = object.__hash__, object.__eq__  # type: ignore[assignment]

    def load(name: str, **_: object) -> Model:
        gc.collect()
        assert not list(alive), f"{name} is loaded beside others"
        model = Heavy(say=CAST[name].say, weigh=CAST[name].weigh)
        alive.add(model)
        return model

    monkeypatch.setattr("constitutional_ai.models.load.load_model", load)
    tournament.measure(replace(suite, turns=2, human="human"))


def test_a_silent_human_ends_matches(suite: Suite) -> None:
    tournament.measure(replace(suite, turns=4, human="silent"))
    assert suite.run.rows("matches/1-human", Response)
    assert {c.comparison.prompt.kind for c in choices(suite, 2)} == {"red_team"}
    assert not (suite.run.folder / "matches" / "3-choices").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"judge": None},
            "matches: not played, because there is no judge. Name one with --judge.",
        ),
        (
            {"candidates": (Candidate("sl-cai", "sl-cai", "sl-cai"),)},
            "matches: not played, because there is only one model. Name another one.",
        ),
    ],
)
def test_without_a_match_nothing_is_measured_and_that_is_said(suite: Suite, change: dict, why: str) -> None:
    suite, said = told(replace(suite, **change))
    found = tournament.measure(suite)
    assert {(m.value, m.low, m.high, m.count) for m in found} == {(None, None, None, 0)}
    assert {m.name for m in found if m.model == "sl-cai"} == {
        f"{name}.{test}" for name in ("elo", "elo_error") for test in ("harmlessness", "helpfulness")
    }
    assert said == [why]


@pytest.mark.parametrize(("prompts", "warned"), [(29, True), (30, False)])
def test_few_prompts_are_said_to_be_few(suite: Suite, prompts: int, warned: bool) -> None:
    suite, said = told(replace(suite, prompts={"helpful": PROMPTS["helpful"][:prompts]}))
    tournament.measure(suite)
    assert any("too narrow" in line for line in said) == warned


def test_a_test_without_prompts_measures_nothing(suite: Suite) -> None:
    found = by_name(tournament.measure(replace(suite, prompts={"helpful": PROMPTS["helpful"]})))
    assert found["elo.harmlessness", "rl-cai"].count == 0
    assert found["elo.helpfulness", "rl-cai"].value is not None


def test_a_model_that_cannot_answer_plays_no_match(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    from constitutional_ai.errors import RecordError

    def fails(context: str) -> str:
        raise RecordError("it is too long")

    monkeypatch.setitem(CAST, "start", ScriptedModel(say=fails))
    lenient = replace(suite.run, max_failures=MANY)
    suite, said = told(replace(suite, run=lenient, prompts={"helpful": PROMPTS["helpful"]}))
    found = by_name(tournament.measure(suite))
    assert found["elo.helpfulness", "start"].value is None
    assert found["elo.helpfulness", "rl-cai"].value is not None
    assert f"matches: {2 * MANY} of {3 * MANY} end in turn 1, because a model could not answer." in said
    assert "elo.helpfulness: start is not rated, as it has won or lost no match." in said
