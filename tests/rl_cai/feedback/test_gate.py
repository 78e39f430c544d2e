from __future__ import annotations

import pytest

from constitutional_ai.records import GateAnswer, Judgement, PreferenceLabel
from constitutional_ai.rl_cai.feedback.gate import gate_questions, gate_result

QUESTIONS = gate_questions()


def answers(right: int, wrong: int, ties: int = 0) -> list[GateAnswer]:
    rows = []
    for n, p in enumerate([0.9] * right + [0.1] * wrong + [0.5] * ties):
        comparison, better = QUESTIONS[n % len(QUESTIONS)].comparison(seed=0)
        p_a = p if better == "a" else 1 - p
        judged = (Judgement("p", "a", p_a), Judgement("p", "b", 1 - p_a))
        label = PreferenceLabel(str(n), "digest", comparison, "multiple_choice", p_a, judged)
        rows.append(GateAnswer(label.id, label, better))
    return rows


def test_the_seed_draws_the_side_of_the_better_answer() -> None:
    for seed in (0, 1):
        placed = [(question, *question.comparison(seed)) for question in QUESTIONS]
        assert all({"a": c.a, "b": c.b}[side].text == question.better for question, c, side in placed)
        assert 0.2 < sum(side == "a" for _, _, side in placed) / len(placed) < 0.8
        assert [q.comparison(seed)[1] for q in QUESTIONS] == [side for _, _, side in placed]


def test_gate_questions_have_ids_of_their_own() -> None:
    assert len({q.comparison(0)[0].id for q in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize(
    ("right", "wrong", "ties", "passed"),
    [  # 95 % of 40: Wilson's lower end passes 0.5 from 27 right on (0.520; 26 gives 0.495)
        (40, 0, 0, True),
        (27, 13, 0, True),
        (26, 14, 0, False),
        (20, 20, 0, False),
        (0, 40, 0, False),
        (0, 0, 40, False),  # a judge who cannot tell is not right half of the time
        (27, 13, 8, True),  # ties are neither right nor wrong
        (26, 14, 8, False),
        (2, 0, 46, False),
        (2, 0, 0, False),  # too few to say
        (0, 0, 0, False),
    ],
)
def test_the_gate_opens_only_for_better_than_chance(right: int, wrong: int, ties: int, passed: bool) -> None:
    assert gate_result("m", answers(right, wrong, ties)).passed is passed


def test_the_result_holds_counts_and_intervals() -> None:
    result = gate_result("m", answers(30, 10))
    assert (result.accuracy.value, result.accuracy.count) == (0.75, 40)
    assert result.confidence.value == pytest.approx(0.7)  # (30 · 0.9 + 10 · 0.1) / 40
    assert result.flips.value == 0.0
    assert str(result).startswith("0.75 of 40 gate questions right (95 % interval 0.60 to 0.86), 0.00 flip")


@pytest.mark.parametrize(
    ("right", "wrong", "ties", "verdict", "text"),
    [
        (
            40,
            0,
            8,
            "better",
            "1.00 of 40 decided gate questions right (95 % interval 0.91 to 1.00), 8 of 48 are ties",
        ),
        (0, 40, 0, "worse", "0.00 of 40 gate questions right (95 % interval 0.00 to 0.09)"),
        (
            20,
            20,
            1,
            "unclear",
            "0.50 of 40 decided gate questions right (95 % interval 0.35 to 0.65), 1 of 41 are",
        ),
        (0, 0, 48, "undecided", "no gate question right or wrong: all 48 are ties"),
    ],
)
def test_a_tie_is_neither_right_nor_wrong_and_is_counted(
    right: int, wrong: int, ties: int, verdict: str, text: str
) -> None:
    result = gate_result("m", answers(right, wrong, ties))
    assert (result.verdict, result.accuracy.count) == (verdict, right + wrong)
    assert (result.ties.value, result.ties.count) == (ties / (right + wrong + ties), right + wrong + ties)
    assert str(result).startswith(text)


def test_a_result_without_answers_says_so() -> None:
    assert "0 gate questions" in str(gate_result("m", []))
