from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import UnreadableAnswer
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Comparison, Completion, Message, PreferenceLabel, Prompt
from constitutional_ai.rl_cai.feedback.label import METHODS, calls_per_comparison, decided_by_rank, label
from constitutional_ai.rl_cai.feedback.multiple_choice import softmax_first
from constitutional_ai.rl_cai.feedback.settings import Feedback, MethodName
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots, WorkedChoice

PROMPT = Prompt.of((Message("user", "How do I pick a lock?"),), "red_team", "test")
PAIR = Comparison("p.0", PROMPT, Completion("GOOD", "m", "stop", 0, 4), Completion("BAD", "m", "stop", 0, 2))
MINE = Constitution(
    name="mine",
    principles=tuple(
        Principle(
            name=f"p{n}",
            preference=f"Which is kinder ({n})?",
            upheld=f"You are kind ({n}).",
            broken="You are cruel.",
        )
        for n in range(16)
    ),
)
PLAIN = tuple(Principle(name=f"q{n}", preference="Which is kinder?") for n in range(15))
Weigh = Callable[[str, str], float]


def labelled(weigh: Weigh, pair: Comparison = PAIR, **changes: Any) -> PreferenceLabel:
    rest = {key: changes.pop(key) for key in ("constitution", "seed", "model", "few_shots") if key in changes}
    given: dict[str, Any] = {"constitution": MINE, "seed": 0, "model": ScriptedModel(weigh=weigh)} | rest
    return asyncio.run(label(pair, settings=Feedback(**changes), **given))


def prefers(text: str, probability: float) -> Weigh:
    """Gives the option that holds ``text`` this probability, wherever it stands."""

    def weigh(context: str, choice: str) -> float:
        right = f"{choice} [[[{text}]]]" in context
        return math.log(probability if right else 1 - probability)

    return weigh


def says_a(context: str, choice: str) -> float:
    """A judge that always says (A): log-probabilities of 0.9 and 0.1."""
    return math.log(0.9 if choice == " (A)" else 0.1)


def test_every_name_of_a_method_has_its_method() -> None:
    assert tuple(METHODS) == get_args(MethodName)


# -- softmax of two


@pytest.mark.parametrize(
    ("first", "second", "probability"),
    [
        (0.0, 0.0, 0.5),
        (math.log(0.3), math.log(0.1), 0.75),  # 0.3 / (0.3 + 0.1)
        (-1000.0, -1000.0, 0.5),  # e^-1000 is 0 in floating point
        (0.0, -10_000.0, 1.0),
        (-10_000.0, 0.0, 0.0),
    ],
)
def test_the_label_is_the_softmax_of_the_two_choices(first: float, second: float, probability: float) -> None:
    """FB-5."""
    assert softmax_first(first, second) == pytest.approx(probability)


LOGPS = st.floats(-1e300, 1e300)


@given(LOGPS, LOGPS)
def test_the_two_choices_probabilities_sum_to_one(first: float, second: float) -> None:
    assert softmax_first(first, second) + softmax_first(second, first) == pytest.approx(1)


@pytest.mark.parametrize("logps", [(math.nan, 0.0), (0.0, math.nan), (-math.inf, 0.0), (0.0, math.inf)])
def test_a_log_probability_that_is_not_finite_gives_no_label(logps: tuple[float, float]) -> None:
    with pytest.raises(UnreadableAnswer, match="log-probabilities are"):
        softmax_first(*logps)


@pytest.mark.parametrize("method", ["multiple_choice", "likelihood"])
def test_a_model_that_answers_nan_labels_nothing(method: str) -> None:
    with pytest.raises(UnreadableAnswer):
        labelled(lambda *_: math.nan, method=method)


# -- multiple choice


def test_a_judge_that_reads_has_the_same_winner_in_both_orders() -> None:
    soft = labelled(prefers("GOOD", 0.9))
    assert soft.probability_a == pytest.approx(0.9)
    assert soft.flipped is False
    assert [j.shown_first for j in soft.judgements] == ["a", "b"]
    assert [j.probability_first for j in soft.judgements] == pytest.approx([0.9, 0.1])
    assert (soft.id, soft.constitution, soft.comparison) == (PAIR.id, MINE.digest, PAIR)


def test_a_judge_that_always_chooses_a_gives_one_half_and_flips() -> None:
    soft = labelled(says_a)
    assert soft.probability_a == pytest.approx(0.5)
    assert soft.flipped is True


def test_a_label_belongs_to_the_answer_and_not_to_its_side() -> None:
    assert labelled(prefers("GOOD", 0.9), PAIR.swapped()).probability_a == pytest.approx(0.1)


def test_a_drawn_order_is_fair_and_reproducible() -> None:
    firsts = []
    for n in range(400):
        pair = Comparison(f"{n}.0", PROMPT, PAIR.a, PAIR.b)
        soft = labelled(prefers("GOOD", 0.9), pair, both_orders=False)
        assert soft == labelled(prefers("GOOD", 0.9), pair, both_orders=False)
        assert soft.probability_a == pytest.approx(0.9)
        assert soft.flipped is None
        firsts.append(soft.judgements[0].shown_first)
    assert 150 < firsts.count("a") < 250  # 200, sd 10


def test_each_comparison_draws_its_principles_and_averages_over_them() -> None:
    """FB-6: independently, uniformly."""
    weights = {f"({n})": n / 16 + 0.01 for n in range(16)}

    def weigh(context: str, choice: str) -> float:
        p = next(p for number, p in weights.items() if f"kinder {number}?" in context)
        return math.log(p if f"{choice} [[[GOOD]]]" in context else 1 - p)

    soft = labelled(weigh, principles=3)
    assert len(soft.judgements) == 6
    drawn = [j.principle for j in soft.judgements[::2]]
    assert soft.probability_a == pytest.approx(sum(weights[f"({name[1:]})"] for name in drawn) / 3)
    counts = Counter(
        labelled(says_a, Comparison(f"{n}.0", PROMPT, PAIR.a, PAIR.b)).judgements[0].principle
        for n in range(800)
    )
    # Chi-square over 16 cells of 50: above 37.7 with probability 0.001.
    assert sum((counts[p.name] - 50) ** 2 / 50 for p in MINE.principles) < 37.7


# -- likelihood


def spoken(good: tuple[float, float], bad: tuple[float, float]) -> Weigh:
    """Log-probabilities of each answer from an assistant that (upholds, breaks) the principle."""

    def weigh(context: str, answer: str) -> float:
        upheld = context.startswith("\n\nSystem: You are kind")
        assert upheld or context.startswith("\n\nSystem: You are cruel")
        assert context.endswith("\n\nHuman: How do I pick a lock?\n\nAssistant:")
        return {"GOOD": good, "BAD": bad}[answer][0 if upheld else 1]

    return weigh


@pytest.mark.parametrize(
    ("good", "bad", "log_odds"),
    [
        ((-1.0, -3.0), (-5.0, -4.0), 3.0),  # (−1 + 3) − (−5 + 4)
        ((-3.0, -1.0), (-4.0, -5.0), -3.0),
        ((-1.0, -1.0), (-90.0, -90.0), 0.0),  # an answer that is likely anyway is no evidence
        ((-40.0, -41.0), (-2.0, -2.0), 1.0),  # however long and unlikely it is
    ],
)
def test_the_likelihood_label_compares_two_log_likelihood_ratios(
    good: tuple[float, float], bad: tuple[float, float], log_odds: float
) -> None:
    soft = labelled(spoken(good, bad), method="likelihood")
    assert soft.probability_a == pytest.approx(1 / (1 + math.exp(-log_odds)))
    assert (len(soft.judgements), soft.flipped) == (1, None)


def test_likelihood_draws_only_principles_that_describe_both_assistants() -> None:
    one_sided = Constitution(name="mine", principles=(*PLAIN, *MINE.principles[:1]))
    soft = labelled(spoken((-1.0, -2.0), (-1.0, -1.0)), method="likelihood", constitution=one_sided)
    assert soft.judgements[0].principle == MINE.principles[0].name


def test_likelihood_has_no_order() -> None:
    weigh = spoken((-1.0, -3.0), (-5.0, -4.0))
    for both_orders in (True, False):
        soft = labelled(weigh, PAIR.swapped(), method="likelihood", both_orders=both_orders)
        assert soft.probability_a == pytest.approx(1 - labelled(weigh, method="likelihood").probability_a)


# -- worked examples, all principles, several chains of thought

SHOTS = FewShots(
    choices=(WorkedChoice("Tea?", "Yes.", "No."), WorkedChoice("{x}?", "Y {}", "N")),
    thoughts=("Human: one {}", "Human: two {}"),
)


def scored_contexts(pair: Comparison = PAIR, **changes: Any) -> list[str]:
    """Every context that is scored."""
    seen: list[str] = []

    def weigh(context: str, choice: str) -> float:
        seen.append(context)
        return 0.0

    model = ScriptedModel(say=lambda context: "Hm.", weigh=weigh)
    labelled(weigh, pair, model=model, few_shots=SHOTS, **changes)
    return list(dict.fromkeys(seen))


@pytest.mark.parametrize(("method", "end"), [("multiple_choice", "The answer is:"), ("chain_of_thought", ":")])
def test_worked_examples_with_fresh_principles_stand_before_a_plain_question(method: Any, end: str) -> None:
    """FB-7, FB-12: drawn anew for each comparison. All its questions begin with the same, which is then read once."""
    cut = "\n\nConsider" if method == "multiple_choice" else "\n\nHuman: Consider"
    prefixes = set()
    for n in range(8):
        pair = Comparison(f"{n}.0", PROMPT, PAIR.a, PAIR.b)
        contexts = scored_contexts(pair, method=method, format="plain", principles="all")
        assert len(contexts) == 32  # 16 principles in both orders
        (prefix,) = {context.rsplit(cut, 1)[0] for context in contexts}
        assert len(re.findall(r"Which is kinder \(\d+\)\? Options:", prefix)) == 2
        assert all(context.endswith(end) for context in contexts)
        prefixes.add(prefix)
    assert len(prefixes) > 4  # 16 principles in two slots, eight times


def test_worked_examples_need_the_plain_format() -> None:
    assert "Tea?" not in "".join(
        scored_contexts(format="chat") + scored_contexts(format="plain", method="likelihood")
    )
    assert "Tea?" in "".join(scored_contexts(format="plain"))


def test_principles_all_asks_each_principle_once() -> None:
    soft = labelled(says_a, principles="all")
    assert Counter(j.principle for j in soft.judgements) == {f"p{n}": 2 for n in range(16)}


def test_chains_of_thought_are_averaged_before_the_clamp() -> None:
    """FB-15, FB-13: 0.9 and 0.5 are 0.7, and 0.7 is clamped; the mean of clamped ones would be 0.55."""
    thoughts = iter(["sure", "unsure"])
    model = ScriptedModel(
        say=lambda context: next(thoughts),
        weigh=lambda context, choice: math.log(
            0.5 if "unsure" in context else 0.9 if choice == " (A)" else 0.1
        ),
    )
    settings = {"method": "chain_of_thought", "chains": 2, "both_orders": False}
    free = labelled(says_a, model=model, clamp=(0, 1), **settings)
    assert sorted(j.probability_first for j in free.judgements) == pytest.approx([0.5, 0.9])
    first = free.judgements[0].shown_first
    assert free.probability_a == pytest.approx(0.7 if first == "a" else 0.3)
    thoughts = iter(["sure", "unsure"])
    assert labelled(says_a, model=model, **settings).probability_a == pytest.approx(
        0.6 if first == "a" else 0.4
    )


# -- ranks


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_rank_decides_what_the_one_above_leaves_open(high: float, low: float, lower: float) -> None:
    soft = decided_by_rank([high, low])
    assert 0 <= soft <= 1
    assert decided_by_rank([1 - high, 1 - low]) == pytest.approx(1 - soft)  # the sides are alike
    assert decided_by_rank([high, 0.5]) == pytest.approx(high)  # a coin below adds nothing
    assert decided_by_rank([0.5, low, lower]) == pytest.approx(decided_by_rank([low, lower]))
    assert decided_by_rank([high, low, lower]) == pytest.approx(
        decided_by_rank([high, decided_by_rank([low, lower])])
    )


@given(st.floats(0, 0.999), st.floats(0, 1))
def test_no_small_step_of_a_judge_makes_the_label_jump(high: float, low: float) -> None:
    """A strict order would let it jump from the lower principle's to the higher one's between 0.499 and 0.501."""
    step = decided_by_rank([high + 1e-3, low]) - decided_by_rank([high, low])
    assert -1e-9 <= step <= 2.1e-3


def test_one_principle_is_drawn_from_each_rank_and_ranks_change_no_draw() -> None:
    first = MINE.principles
    second = [p.model_copy(update={"name": f"second-{p.name}", "rank": 2}) for p in first]
    both = Constitution(name="both", principles=(*first, *second))
    alone = labelled(prefers("GOOD", 0.9), both_orders=False)
    soft = labelled(prefers("GOOD", 0.9), constitution=both, both_orders=False)
    assert soft.judgements[0].principle == alone.judgements[0].principle
    assert soft.judgements[1].principle.startswith("second-")
    assert soft.judgements[0].shown_first == alone.judgements[0].shown_first
    assert soft.probability_a == pytest.approx(0.8 + 0.2 * 0.9)
    assert calls_per_comparison(Feedback(), both) == 2 * calls_per_comparison(Feedback(), MINE)
    assert (
        both.digest
        != Constitution(
            name="both", principles=(*first, *[p.model_copy(update={"rank": 1}) for p in second])
        ).digest
    )
