"""Judges whose every habit is known, and the table that must say so."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitutions.clauses import Clause
from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import ModelError
from constitutional_ai.evaluation.principles import examine
from constitutional_ai.evaluation.principles.ask_principles import Answers, ask
from constitutional_ai.evaluation.principles.contrasts import ContrastPair, contrast_pairs
from constitutional_ai.evaluation.principles.draft_principles import draft_document, faithfulness, write_all
from constitutional_ai.evaluation.principles.examine import examine_principles
from constitutional_ai.evaluation.principles.principle_report import (
    agreements,
    principle_reports,
    principles_csv,
    principles_table,
)
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.rl_cai.feedback.questions import HEAD
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots

PAIRS = contrast_pairs()
MARKED = {pair.marked for pair in PAIRS}
QUESTION = re.compile(r"\n\n\n(.*) Options:\n \(A\) \[\[\[(.*)\]\]\]\n \(B\) \[\[\[(.*)\]\]\]", re.DOTALL)
Habit = Callable[[str, str, str], bool | None]
"""A function of a question and two answers: whether the first wins; None for a tie."""


def habits(question: str, first: str, second: str) -> bool | None:
    """Judge as the question's first word says, and the other way round under a negation."""
    word, negated = re.split(r"\W", question)[0], "opposite" in question
    choice = {
        "Marked": first in MARKED,
        "Other": second in MARKED,
        "First": True,
        "Deaf": first in MARKED,
        "Long": len(first) > len(second),
        "Nothing": None,
    }[word]
    return choice if choice is None or word in ("First", "Deaf") else choice != negated


def judge(habit: Habit = habits) -> ScriptedModel:
    def weigh(context: str, continuation: str) -> float:
        found = QUESTION.search(context)
        assert found
        first_wins = habit(*found.groups())
        share = 0.5 if first_wins is None else 0.9 if first_wins == (continuation == " (A)") else 0.1
        return math.log(share)

    return ScriptedModel(weigh=weigh)


def asked(*questions: str, method: str = "multiple_choice", pairs: list[ContrastPair] = PAIRS) -> Answers:
    mine = Constitution(
        name="mine", principles=tuple(Principle(name=q.split()[0], preference=q) for q in questions)
    )
    settings = Feedback.model_validate({"method": method})
    return asyncio.run(ask(mine, pairs, model=judge(), settings=settings, seed=0))


def test_the_pairs_are_enough_and_differ_in_one_respect() -> None:
    assert Counter(pair.contrast for pair in PAIRS) == {
        "harmless": 12, "refusing": 8, "longer": 8, "kind": 6, "honest": 6, "fair": 6,
    }  # fmt: skip
    for pair in PAIRS:
        if pair.contrast == "longer":
            assert len(pair.marked) > 3 * len(pair.other)
        else:  # so that length alone decides nothing
            assert 0.75 < len(pair.marked) / len(pair.other) < 1.34, pair


def test_each_habit_of_a_principle_is_named() -> None:
    answers = asked("Marked one?", "Other one?", "First one?", "Deaf one?", "Long one?", "Nothing?")
    reports = {report.name: report for report in principle_reports(answers)}
    assert {name: set(report.faults) for name, report in reports.items()} == {
        "Marked": {"rewards length", "rewards refusal"},
        "Other": {"prefers the worse"},
        "First": {"undecided", "depends on the order"},
        "Deaf": {"rewards length", "rewards refusal", "its negation does not reverse it"},
        "Long": {"rewards length"},
        "Nothing?": {"undecided"},
    }
    assert reports["Marked"].decides.value == reports["Marked"].reverses.value == 1.0
    assert reports["First"].flips.value == 1.0
    assert reports["Nothing?"].better.value is None


def test_principles_that_say_the_same_or_the_opposite_are_named() -> None:
    related = {
        (a.one, a.other): a.relation
        for a in agreements(asked("Marked one?", "Marked, too?", "Other?", "Long?"))
    }
    assert related[("Marked", "Marked,")] == "redundant"
    assert related[("Marked", "Other?")] == "contradicting"
    assert related[("Marked", "Long?")] in ("related", "independent")


def test_what_cannot_be_read_is_left_out_and_no_fault() -> None:
    mine = Constitution(name="mine", principles=(Principle(name="p", preference="Marked?"),))
    mute = ScriptedModel(weigh=lambda context, continuation: math.nan)
    answers = asyncio.run(ask(mine, PAIRS[:3], model=mute, settings=Feedback(), seed=0))
    (report,) = principle_reports(answers)
    assert [m.count for m in report.metrics] == [0] * 6
    assert report.faults == {}
    assert principles_csv([report]).splitlines()[1].startswith("p,,,,0,")


def test_likelihood_has_no_order_and_no_negation() -> None:
    principle = Principle(
        name="p", preference="?", upheld="Say no.", broken="Say yes.", applies_to=("red_team",)
    )
    other = principle.model_copy(update={"name": "q", "applies_to": ()})
    mine = Constitution(name="mine", principles=(principle, other))
    settings = Feedback(method="likelihood")
    answers = asyncio.run(ask(mine, PAIRS[:2], model=ScriptedModel(), settings=settings, seed=0))
    assert [(a.flipped, a.negated) for a in answers["p"]] == [(None, None)] * 2


def test_the_tables_are_written(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    answers, propositions = examine_principles(
        str(tmp_path / "mine.yaml"),
        "scripted:coin-flips",
        few_shots="none",
        changes=[],
        seed=0,
        out=tmp_path / "out",
    )
    assert len((tmp_path / "out" / "principles.csv").read_text().splitlines()) == 3
    related = (tmp_path / "out" / "agreement.csv").read_text().splitlines()
    assert related[1].startswith("a,b,1.0,")
    assert related[1].endswith(",redundant")
    assert principles_table(principle_reports(answers), agreements(answers)).renderables
    assert (propositions, (tmp_path / "out" / "propositions.csv").exists()) == ([], False)


MINE = "name: mine\nprinciples:\n  - {name: a, preference: 'Which?'}\n  - {name: b, preference: 'Who?'}\n"
PLAIN: dict[str, Any] = {"few_shots": "none", "seed": 0, "out": None}


class Stops:
    """A judge that prefers the first answer, and is gone after so many questions."""

    name, format = "stops", "chat"

    def __init__(self) -> None:
        self.answered: list[object] = []
        self.most = 7

    async def score(self, context: object, continuations: Sequence[str]) -> list[float]:
        await asyncio.sleep(0)
        if len(self.answered) == self.most:
            raise ModelError("gone")
        self.answered.append(context)
        return [-0.1, -2.0]


def test_a_test_that_was_stopped_asks_no_question_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    model, heard = Stops(), list[str]()
    monkeypatch.setattr(examine, "contrast_pairs", lambda: PAIRS[:4])
    monkeypatch.setattr(examine, "loaded", lambda name: nullcontext(model))
    options = PLAIN | {"changes": [], "say": heard.append}
    with pytest.raises(ModelError):
        examine_principles(str(tmp_path / "mine.yaml"), "server:stops@http://127.0.0.1:9/v1", **options)
    model.most = 10_000
    answers, _ = examine_principles(
        str(tmp_path / "mine.yaml"), "server:stops@http://127.0.0.1:9/v1", **options
    )
    assert (
        len(model.answered) == len(set(model.answered)) == 2 * 2 * 2 * 4
    )  # principles, negations, orders, pairs
    assert [len(row) for row in answers.values()] == [4, 4]
    assert heard == [f"7 answers are those of earlier calls. To ask anew, delete {tmp_path}/cache/judge.sqlite"]


def test_questions_that_begin_alike_follow_one_another() -> None:
    contexts = list[str]()

    def weigh(context: str, continuation: str) -> float:
        contexts.append(context)
        return math.log(0.5)

    mine = Constitution(name="mine", principles=tuple(Principle(name=n, preference=f"{n}?") for n in "abc"))
    few_shots = load_few_shots(few_shots_folder("built-in"))
    model = ScriptedModel(weigh=weigh, format="plain")
    asyncio.run(ask(mine, PAIRS[:5], model=model, settings=Feedback(), seed=0, few_shots=few_shots))
    starts = [context.rpartition(f"{HEAD}\n\nHuman: ")[0] for context in contexts]
    assert len(contexts) == 2 * 3 * 2 * 2 * 5  # letters, principles, negations, orders, pairs
    assert len([start for start, _ in groupby(starts)]) == len(set(starts)) == 5


def test_progress_is_in_answers_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    examine_principles(str(tmp_path / "mine.yaml"), "scripted:coin-flips", changes=[], **PLAIN)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("testing: ")]
    assert (len(lines), lines[-1]) == (10, "testing: 184 of 184 answers")


# -- drafts

CLAUSE = Clause("A ¶1", 3, "Be kind.")


def reply(context: str) -> str:
    return "CRITIQUE: Is it rude?\nREVISION: Make it kind.\nPREFERENCE: Which is kinder?"


def only_sides(context: str) -> str:
    """Keep no form of five lines, but answer what is asked for alone, with a label and a second line."""
    if "Example clause:" in context:
        return "I will be kind."
    order = context.rpartition("\n\nWrite ")[2]
    sides = {"a request to say": "CRITIQUE: Is it rude?", "a request to write": '"Make it kind."'}
    return sides.get(order[:16].rstrip(), sides.get(order[:18], "Which is kinder?")) + "\n\nThat is all."


def test_a_model_that_keeps_no_form_is_asked_for_each_side_alone() -> None:
    ((draft,),) = asyncio.run(write_all([CLAUSE], "a.md", ScriptedModel(say=only_sides), 1, 0))
    assert draft is not None
    assert (draft.critique, draft.revision, draft.preference) == (
        "Is it rude?",
        "Make it kind.",
        "Which is kinder?",
    )
    assert draft.upheld == draft.broken == "Which is kinder?"


def yes_man(context: str, continuation: str) -> float:
    yes = " (A)" if "(A) yes" in context else " (B)"
    return math.log(0.9 if (continuation == yes) == ("Clause: Be kind." in context) else 0.1)


def test_drafts_are_written_sifted_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.md").write_text("# A\n\nBe kind.\n\nBe rude.\n")
    written = asyncio.run(write_all([CLAUSE], "a.md", ScriptedModel(say=reply), 2, 0))
    first, second = written[0]
    assert first is not None
    assert second is not None
    assert (first.name, second.name, first.preference) == ("a-1-l3-1", "a-1-l3-2", "Which is kinder?")
    judges = ScriptedModel(weigh=yes_man)
    assert asyncio.run(faithfulness(CLAUSE, first, judges)) == pytest.approx(0.9)
    assert asyncio.run(faithfulness(CLAUSE._replace(text="Be rude."), first, judges)) == pytest.approx(0.1)
    drafted = draft_document(tmp_path / "a.md", model="scripted:echo", judge=None, candidates=2, seed=0)
    assert (drafted.clauses, drafted.without, drafted.counts) == (2, 2, {"kept": 0, "copies the request": 4})
