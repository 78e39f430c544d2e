from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path

import pytest

from constitutional_ai.constitutions.constitution import draw
from constitutional_ai.evaluation import suite
from constitutional_ai.evaluation.matches import tournament
from constitutional_ai.evaluation.matches.game import INSTRUCTIONS, MatchTurn
from constitutional_ai.evaluation.matches.pairings import Pairing
from constitutional_ai.evaluation.suite import open_evaluation
from constitutional_ai.models.model import Model
from constitutional_ai.models.scripted import ScriptedModel, asks_back
from constitutional_ai.records import Kind, Message, Prompt
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.runs.runner import Silent
from constitutional_ai.seeding import rng
from tests.evaluation.suites import suite_of

TALK = (
    Message("user", "How do I cook eggs?"),
    Message("assistant", "An old answer."),
    Message("user", "And then?"),
)


def prompt(*conversation: Message, kind: Kind = "helpful") -> Prompt:
    return Prompt.of(conversation, kind, "test")


def says(text: str) -> ScriptedModel:
    return ScriptedModel(say=lambda context: text)


def asking_back(context: str) -> str:
    return f"Which of {context.count('Human:')}?"


Played = Callable[..., list[MatchTurn]]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """Plays one match: a tournament of two models on one prompt."""
    folders = (tmp_path / str(n) for n in count())
    monkeypatch.setattr(
        tournament, "pairings", lambda prompts, labels, seed: [Pairing(p, "a's", "b's") for p in prompts]
    )

    def play(
        first: Prompt,
        a: Model,
        b: Model,
        judge: Model,
        *,
        feedback: Feedback | None = None,
        human: Model | None = None,
        turns: int = 1,
    ) -> list[MatchTurn]:
        models = {"scripted:a's": a, "scripted:b's": b, "judge": judge, "human": human}
        monkeypatch.setattr(suite, "loaded_in_loop", lambda name, **_: nullcontext(models[name]))
        with open_evaluation(next(folders), Silent()) as run:
            changes = {"prompts": {first.kind: [first]}, "human": human and "human", "turns": turns}
            players = suite_of(run, "a's", "b's", feedback=feedback or Feedback(), **changes)
            return list(tournament.play_all(players, "judge"))

    return play


JUDGE = ScriptedModel(weigh=asks_back)
"""Likes replies that ask a question back."""


@pytest.mark.parametrize(("a", "b", "winner"), [("Why?", "Boil.", "a"), ("Boil.", "Why?", "b")])
def test_the_judge_picks_in_both_orders(played: Played, a: str, b: str, winner: str) -> None:
    (choice,) = played(prompt(TALK[0]), says(a), says(b), JUDGE, feedback=Feedback(both_orders=False))
    assert (choice.winner, choice.opinion.flipped) == (winner, False)
    assert {j.shown_first for j in choice.opinion.judgements} == {"a", "b"}
    match = choice.match
    assert (match.prompt, match.a, match.b, match.winner) == (prompt(TALK[0]).id, "a's", "b's", winner)


def test_each_turn_goes_on_with_the_reply_that_was_picked(played: Played) -> None:
    """The prompt's own answer is gone: what was picked stands in its place."""
    first, second = played(prompt(*TALK), says("Boil them."), ScriptedModel(say=asking_back), JUDGE)
    assert first.comparison.prompt.conversation == TALK[:1]
    assert first.winner == "b"
    assert second.comparison.prompt.conversation == (TALK[0], Message("assistant", "Which of 1?"), TALK[2])
    assert second.comparison.b.text == "Which of 2?"
    assert [c.prompt for c in (first, second)] == [prompt(*TALK).id] * 2
    assert [c.id.rpartition(".")[2] for c in (first, second)] == ["1", "2"]


def always_first(context: str, continuation: str) -> float:
    return math.log(0.9 if continuation == " (A)" else 0.1)


def test_two_orders_that_cancel_each_other_are_a_tie_and_one_of_the_two_goes_on(played: Played) -> None:
    a, b = says("Boil."), says("Fry.")
    first, second = played(prompt(*TALK), a, b, ScriptedModel(weigh=always_first))
    assert (first.winner, first.opinion.flipped, len(first.opinion.judgements)) == ("tie", True, 2)
    assert second.comparison.prompt.conversation[1].content in ("Boil.", "Fry.")


def test_a_tie_goes_on_with_either_by_lot(played: Played) -> None:
    ties = [
        played(prompt(Message("user", f"{n}?"), *TALK[1:]), says("Boil."), says("Fry."), ScriptedModel())
        for n in range(20)
    ]
    assert {second.comparison.prompt.conversation[1].content for _, second in ties} == {"Boil.", "Fry."}


def test_equal_replies_are_a_tie_and_nobody_is_asked(played: Played) -> None:
    def never(context: str, continuation: str) -> float:
        raise AssertionError("asked")

    (choice,) = played(prompt(TALK[0]), says("Boil."), says("Boil."), ScriptedModel(weigh=never))
    assert (choice.winner, choice.opinion.judgements, choice.opinion.flipped) == ("tie", (), None)


def test_a_judge_that_fails_leaves_the_choice_undecided_and_ends_the_match(played: Played) -> None:
    nan = ScriptedModel(weigh=lambda context, continuation: math.nan)
    (choice,) = played(prompt(*TALK), says("Boil."), says("Fry."), nan)
    assert (choice.winner, choice.match.winner, choice.opinion.probability_a) == (None, None, None)
    assert choice.opinion.failure and choice.opinion.failure.error == "UnreadableAnswer"


def test_a_model_writes_the_human_turns_that_a_prompt_lacks(played: Played) -> None:
    human = ScriptedModel(say=lambda context: f"Human: Turn {context.count('Human:')}, please.")
    choices = played(prompt(*TALK), says("Boil."), says("Why?"), JUDGE, human=human, turns=4)
    humans = [m.content for m in choices[-1].comparison.prompt.conversation if m.role == "user"]
    assert humans == ["How do I cook eggs?", "And then?", "Turn 3, please.", "Turn 4, please."]


def test_an_empty_human_turn_ends_the_match(played: Played) -> None:
    assert len(played(prompt(TALK[0]), says("Boil."), says("Why?"), JUDGE, human=says(" "), turns=4)) == 1


def test_a_prompts_own_turns_are_all_played_whatever_turns_says(played: Played) -> None:
    assert len(played(prompt(*TALK), says("Boil."), says("Why?"), JUDGE, turns=1)) == 2


@pytest.mark.parametrize("kind", ["red_team", "helpful"])
def test_each_test_has_one_instruction_for_every_way_of_asking(kind: Kind) -> None:
    (principle,) = INSTRUCTIONS[kind].principles
    assert INSTRUCTIONS[kind].for_preference == INSTRUCTIONS[kind].for_likelihood == (principle,)
    assert draw(INSTRUCTIONS[kind].for_preference, rng("any")) == principle


@pytest.mark.parametrize(("kind", "told"), [("red_team", True), ("helpful", False)])
def test_a_judge_of_red_teaming_is_told_to_prefer_the_less_evasive(
    played: Played, kind: Kind, told: bool
) -> None:
    asked: list[str] = []

    def weigh(context: str, continuation: str) -> float:
        asked.append(context)
        return math.log(0.5)

    played(prompt(TALK[0], kind=kind), says("Boil."), says("Fry."), ScriptedModel(weigh=weigh))
    assert all(("less evasive" in question) == told for question in asked) and asked


@pytest.mark.parametrize("method", ["multiple_choice", "chain_of_thought", "votes", "likelihood"])
def test_a_judge_may_be_asked_in_any_way(played: Played, method: str) -> None:
    """It reasons and votes for (A), and likelier is what is shorter."""
    model = ScriptedModel(
        say=lambda context: "(A)", weigh=lambda context, continuation: -float(len(continuation))
    )
    (choice,) = played(
        prompt(TALK[0]),
        says("Boil."),
        says("Fry."),
        model,
        feedback=Feedback(method=method),  # type: ignore[arg-type]
    )
    assert choice.winner == "tie"
