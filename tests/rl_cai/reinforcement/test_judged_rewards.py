"""Rewards without a preference model: comparisons within a group, and propositions, by judges of known answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Constitution, Principle, load_constitution
from constitutional_ai.data.worked_examples import BUILT_IN
from constitutional_ai.errors import RecordError, TooManyFailures, UnreadableAnswer
from constitutional_ai.models.abilities import Reading
from constitutional_ai.models.scripted import ScriptedModel, scripted
from constitutional_ai.records import Conversation, Message, Prompt
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.rl_cai.feedback.yes_or_no import probability_of_yes
from constitutional_ai.rl_cai.reinforcement.algorithms import AlgorithmName
from constitutional_ai.rl_cai.reinforcement.feedback_reward import FeedbackReward
from constitutional_ai.rl_cai.reinforcement.groupwise_reward import GroupwiseReward, circle, mean_win
from constitutional_ai.rl_cai.reinforcement.judged_reward import JudgedReward
from constitutional_ai.rl_cai.reinforcement.proposition_reward import PropositionReward
from constitutional_ai.rl_cai.reinforcement.reinforce import examples, reinforce
from tests.rl_cai.reinforcement.test_reinforce import HOW, changed
from tests.training.jobs import training_job

FAULT = UnreadableAnswer("no")
PLANTED = scripted("asks-back")


def answered(*answers: str, prompt: str = "Hi") -> list[Conversation]:
    return [(Message("user", prompt), Message("assistant", answer)) for answer in answers]


def principles(*given: dict[str, Any]) -> Constitution:
    named = [Principle.model_validate({"name": f"p{n}"} | one) for n, one in enumerate(given)]
    return Constitution(name="m", principles=tuple(named))


COMPARES = principles({"preference": "Which asks back?"})


def groupwise(
    *talks: Conversation, model: Any = PLANTED, neighbours: int = 2, **more: Any
) -> list[float | None]:
    more = {"constitution": COMPARES, "settings": Feedback(), "seed": 0} | more
    return GroupwiseReward(model, neighbours=neighbours, **more)(talks)


def propositions(constitution: Constitution, *talks: Conversation, model: Any = PLANTED, **more: Any) -> Any:
    return PropositionReward(model, constitution, more.pop("settings", Feedback()), 0, **more)(talks)


# -- groupwise


@given(st.integers(1, 9), st.integers(1, 9))
def test_each_answer_stands_beside_its_next_ones_in_a_circle(answers: int, neighbours: int) -> None:
    pairs = circle(answers, neighbours)
    assert len(pairs) == len(set(pairs))
    assert all(0 <= one < other < answers for one, other in pairs)
    for answer in range(answers):
        others = {one + other - answer for one, other in pairs if answer in (one, other)}
        assert others == {
            (answer + step) % answers for d in range(1, neighbours + 1) for step in (d, -d) if d <= answers // 2
        } - {answer}


def test_the_reward_is_the_mean_probability_of_winning_against_neighbours() -> None:
    """The judge gives 0.95 to an answer with a question, and one half if both or neither ask."""
    talks = answered("Why?", "Fine.", "Good.", "Who?")
    assert groupwise(*talks, neighbours=1) == [
        pytest.approx((0.95 + 0.5) / 2),  # beside "Fine." and "Who?"
        pytest.approx((0.05 + 0.5) / 2),
        pytest.approx((0.5 + 0.05) / 2),
        pytest.approx((0.95 + 0.5) / 2),
    ]
    every = groupwise(*talks, neighbours=2)
    assert every == [pytest.approx(x) for x in (0.8, 0.2, 0.2, 0.8)]  # (2·0.95 + 0.5) / 3
    assert sum(x for x in every if x is not None) == pytest.approx(2)


def test_groups_are_told_apart_and_equal_answers_cost_nothing() -> None:
    asked: list[str] = []

    def weigh(context: str, letter: str) -> float:
        asked.append(context)
        return 0.0 if letter == " (A)" else -1.0  # always prefers the first: both orders make it one half

    one, other = answered("Same.", "Same."), answered("Same.", "New.", prompt="Bye")
    mixed = [one[0], other[0], one[1], other[1]]
    assert groupwise(*mixed, model=ScriptedModel(weigh=weigh)) == [0.5, pytest.approx(0.5)] * 2
    assert len(set(asked)) == 2  # the one pair that differs, in both orders
    assert all("Bye" in context for context in asked)


def test_a_group_is_judged_under_one_principle_drawn_by_its_prompt() -> None:
    seen: dict[str, set[str]] = {}

    def weigh(context: str, letter: str) -> float:
        prompt = context.partition("Human: Prompt ")[2].partition("\n")[0]
        seen.setdefault(prompt, set()).add(context.rpartition(" Options:")[0].rpartition("\n")[2])
        return 0.0

    many = principles(*[{"preference": f"Q{n}?"} for n in range(16)])
    talks = [talk for n in range(8) for talk in answered("a", "b", "c", prompt=f"Prompt {n}")]
    groupwise(*talks, model=ScriptedModel(weigh=weigh), constitution=many)
    assert len(seen) == 8
    assert all(len(drawn) == 1 for drawn in seen.values())
    assert len(set.union(*seen.values())) > 2


def test_a_comparison_without_an_answer_counts_for_neither_and_too_few_are_no_reward() -> None:
    def weigh(context: str, letter: str) -> float:
        return math.nan if "MUTE" in context else PLANTED.weigh(context, letter)

    judge = ScriptedModel(weigh=weigh)
    talks = answered("Why?", "Fine.", "MUTE", "Good.")
    assert groupwise(*talks, model=judge, neighbours=1) == [
        pytest.approx(0.95),  # beside "Fine." and "Good."
        pytest.approx(0.05),  # its other neighbour is MUTE
        None,
        pytest.approx(0.05),
    ]
    with pytest.raises(TooManyFailures, match="judged none of 2 answers; the last: the model's log-prob"):
        groupwise(*answered("MUTE", "Fine."), model=judge)
    alone = [*answered("Fine.", prompt="Alone"), *answered("Why?", "Fine.")]
    assert groupwise(*alone) == [None, pytest.approx(0.95), pytest.approx(0.05)]


@pytest.mark.parametrize(
    ("chances", "expected"),
    [([0.2, 0.4, FAULT], 0.3), ([0.2, FAULT], 0.2), ([0.2, FAULT, FAULT], None), ([FAULT], None), ([], None)],
)
def test_half_of_the_comparisons_are_enough(
    chances: Sequence[float | RecordError], expected: float | None
) -> None:
    mean = mean_win(chances)
    assert isinstance(mean, RecordError) if expected is None else mean == pytest.approx(expected)


# -- propositions


def test_the_reward_is_the_weighted_probability_that_propositions_are_as_wanted() -> None:
    """The judge says yes with 0.95 about an answer with a question, whatever the proposition."""
    mine = principles(
        {"proposition": "Does it ask?", "weight": 3.0},
        {"proposition": "Is it curt?", "wanted": False},
        {"preference": "Which asks?"},
    )
    for fmt in ("chat", "plain"):
        rewards = propositions(mine, *answered("Why?", "Fine."), settings=Feedback(format=fmt))
        assert rewards == [pytest.approx((3 * 0.95 + 0.05) / 4), pytest.approx((3 * 0.05 + 0.95) / 4)]


def test_one_unanswered_proposition_leaves_the_answer_without_a_reward() -> None:
    def weigh(context: str, word: str) -> float:
        return math.nan if "Is it long?" in context and "Why?" in context else PLANTED.weigh(context, word)

    mine = principles({"proposition": "Does it ask?"}, {"proposition": "Is it long?"})
    judge = ScriptedModel(weigh=weigh)
    assert propositions(mine, *answered("Why?", "Fine."), model=judge) == [None, pytest.approx(0.05)]
    with pytest.raises(TooManyFailures):
        propositions(mine, *answered("Why?"), model=judge)


def test_a_proposition_and_a_comparison_with_a_scope_are_for_prompts_of_that_kind_or_tag_alone() -> None:
    mine = principles(
        {"proposition": "Does it ask?", "preference": "ALL?"},
        {
            "proposition": "Is it curt?",
            "wanted": False,
            "preference": "TAG?",
            "applies_to": ("tag",),
            "weight": 1e9,
        },
    )
    talks = [*answered("Why?", "Fine.", prompt="tagged"), *answered("Why?", "Fine.", prompt="other")]
    tagged = Prompt.of(talks[0][:-1], "helpful", "test", ("tag",))
    known = {tagged.id: tagged}
    assert propositions(mine, *talks[::2], prompts=known) == [pytest.approx(0.05), pytest.approx(0.95)]
    seen: set[str] = set()

    def weigh(context: str, letter: str) -> float:
        seen.add(f"{'tagged' in context} {'TAG?' in context}")
        return 0.0

    groupwise(*talks, model=ScriptedModel(weigh=weigh), constitution=mine, prompts=known)
    assert seen == {"True True", "False False"}


def test_the_default_constitution_has_propositions_that_differ_from_one_another() -> None:
    ours = load_constitution("default")
    assert len(ours.propositions) == 8
    assert {p.wanted for p in ours.propositions} == {True, False}
    assert not [p.name for p in ours.propositions if p.preference or p.revision]


class Lettered:
    """A chat server that scores nothing: it prefers the letter A by 0.1, and means yes."""

    name, format = "lettered", "chat"

    async def letters(self, conversation: Conversation, letters: Sequence[str]) -> Reading:
        yes_first = "(A) yes" in conversation[-1].content
        chance = 0.8 if yes_first else 0.4  # P(A): 0.7 for yes, and 0.1 more for A
        return Reading((chance, 1 - chance), 1.0, "A")


def test_letters_stand_for_yes_and_no_in_both_orders() -> None:
    (talk,) = answered("Fine.")
    chance = asyncio.run(probability_of_yes(talk, "Is it {kind}?", Lettered(), Feedback()))  # type: ignore[arg-type]
    assert chance == pytest.approx(0.7)


# -- ratings by likelihood


@pytest.mark.parametrize(("fmt", "shown"), [("plain", True), ("chat", False)])
def test_each_assistant_is_rated_behind_its_worked_dialogues_in_plain_text_alone(fmt: Any, shown: bool) -> None:
    shots = load_few_shots(BUILT_IN["short"])
    assert shots is not None
    mine = principles({"preference": "?", "upheld": "You are kind.", "broken": "You are cruel."})

    def weigh(context: str, answer: str) -> float:
        revised = context.startswith(shots.revised())
        assert revised == (shown and "You are kind." in context)
        assert context.startswith(shots.unrevised()) == (shown and "You are cruel." in context)
        return math.log(3) if "You are kind." in context else 0.0

    settings = Feedback(method="likelihood", format=fmt)
    rate = FeedbackReward(ScriptedModel(weigh=weigh), mine, settings, 0, shots)
    assert rate(answered("Fine.")) == [pytest.approx(0.5)]


# -- the planted preference


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("rloo", GroupwiseReward), ("grpo", PropositionReward)],
    ids=["groupwise", "propositions"],
)
def test_each_reward_teaches_the_preference_that_was_planted(
    tiny: Path, tmp_path: Path, algorithm: AlgorithmName, kind: type[JudgedReward]
) -> None:
    """A tiny random model asks in 3 % of its answers; with coin flips for comparisons it stays below 15 %."""
    mine = principles({"preference": "Which asks back?", "proposition": "Does it ask?"})
    reward, shares = kind(PLANTED, mine, Feedback(), 0), []

    def watched(talks: list[Conversation]) -> Sequence[float | None]:
        shares.append(fmean("?" in talk[-1].content for talk in talks))
        return reward(talks)

    sampling = {"algorithm": algorithm, "answers": 8, "batch_size": 64, "micro_batch": 64, "max_tokens": 24}
    how = changed(HOW, **sampling, epochs=12, learning_rate=1e-2, kl_weight=0, checkpoint_steps=1000)
    asked = [Prompt.of((Message("user", f"Tell me {n}."),), "red_team", "test") for n in range(8)]
    reinforce(training_job(examples(asked), tiny, tmp_path, how, base_name="sl-cai"), reward=watched)
    assert shares[0] < 0.2
    assert shares[-1] > 0.5
