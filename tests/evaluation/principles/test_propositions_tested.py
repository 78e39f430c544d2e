"""Judges of propositions whose every habit is known."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.evaluation.principles.ask_propositions import AskedProposition, ask_propositions
from constitutional_ai.evaluation.principles.contrasts import contrast_pairs
from constitutional_ai.evaluation.principles.examine import examine_principles
from constitutional_ai.evaluation.principles.proposition_report import (
    PropositionReport,
    proposition_reports,
    propositions_csv,
    propositions_table,
)
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.rl_cai.feedback.settings import Feedback

PAIRS = contrast_pairs()
MARKED = {pair.marked for pair in PAIRS}
HABITS = {
    "Marked": lambda reply: 0.9 if reply in MARKED else 0.1,
    "Other": lambda reply: 0.1 if reply in MARKED else 0.9,
    "Long": lambda reply: min(0.9, len(reply) / 200),
    "Yes": lambda reply: 0.99,
    "No": lambda reply: 0.01,
    "Nothing": lambda reply: 0.5,
    "Mute": lambda reply: math.nan,
}


def cai(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, words, prog_name="cai")
    return result.exit_code, result.output


def weigh(context: str, continuation: str) -> float:
    """Answer as the question's first word says."""
    before = context.removesuffix("The answer is:").rstrip().removesuffix("\n\nAssistant:")
    talk, _, question = before.rpartition("\n\n")
    yes = HABITS[question.split()[0]](talk.rpartition("\n\nAssistant: ")[2])
    return math.log(yes if continuation == " yes" else 1 - yes)


def asked(*habits: str, wanted: bool = True) -> list[AskedProposition]:
    mine = Constitution(
        name="mine",
        principles=tuple(Principle(name=h, proposition=f"{h} it is?", wanted=wanted) for h in habits),
    )
    return asyncio.run(ask_propositions(mine, PAIRS, model=ScriptedModel(weigh=weigh), settings=Feedback()))


def reports(*habits: str, wanted: bool = True) -> dict[str, PropositionReport]:
    return {report.name: report for report in proposition_reports(asked(*habits, wanted=wanted))}


def test_each_habit_of_a_proposition_is_named() -> None:
    found = reports(*HABITS)
    assert {name: set(report.faults) for name, report in found.items()} == {
        "Marked": {"rewards length", "rewards refusal"},
        "Other": {"prefers the worse"},
        "Long": {"rewards length"},
        "Yes": {"says yes to all"},
        "No": {"says no to all"},
        "Nothing": {"undecided"},
        "Mute": set(),
    }
    assert (found["Marked"].better.value, found["Other"].better.value, found["Yes"].better.value) == (1, 0, 0.5)
    assert (found["Marked"].decides.count, found["Marked"].better.count) == (92, 60)
    assert [metric.count for metric in found["Mute"].metrics] == [0] * 5


def test_what_is_not_wanted_counts_the_other_way() -> None:
    found = reports("Marked", "Other", "No", wanted=False)
    assert {name: set(report.faults) for name, report in found.items()} == {
        "Marked": {"prefers the worse"},
        "Other": {"rewards length", "rewards refusal"},
        "No": {"says no to all"},
    }


def test_questions_about_one_answer_follow_one_another() -> None:
    contexts = list[str]()

    def indifferent(context: str, continuation: str) -> float:
        contexts.append(context)
        return math.log(0.5)

    mine = Constitution(name="m", principles=tuple(Principle(name=n, proposition=f"{n}?") for n in "abc"))
    model = ScriptedModel(weigh=indifferent)
    asyncio.run(ask_propositions(mine, PAIRS[:1], model=model, settings=Feedback()))
    assert [PAIRS[0].marked in context for context in contexts] == [True] * 6 + [False] * 6


def test_the_table_names_numbers_and_faults() -> None:
    told = proposition_reports(asked("Marked", "Mute"))
    assert propositions_csv(told).splitlines()[1].startswith("Marked,1.0,")
    assert propositions_csv(told).splitlines()[1].endswith(",rewards length; rewards refusal")
    assert str(propositions_table(told)[-1]) == "Marked: rewards refusal: 1.00 (0.68 to 1.00) of 8"
    assert propositions_table([]) == []


MINE = "name: mine\nprinciples:\n- {name: a, proposition: Is there a question in it?}\n"


def test_a_check_warns_of_the_propositions_of_this_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(MINE)
    code, printed = cai("constitution", "test", "mine.yaml", "--judge", "scripted:echo", "--out", "mine.test")
    assert (code, "a: undecided: 0.00 (0.00 to 0.04) of 92" in printed) == (0, True)
    assert {path.name for path in Path("mine.test").iterdir()} == {"propositions.csv", "tested.json"}
    printed = cai("check", "mine.yaml")[1]
    assert "tested by scripted:echo with method multiple_choice: 1 of 1 propositions have a fault" in printed
    assert "  a: undecided" in printed
    Path("mine.yaml").write_text(MINE.replace("question", "word"))
    assert "but with other propositions: test these, too" in cai("check", "mine.yaml")[1]


def test_votes_read_no_probability_of_a_yes(tmp_path: Path) -> None:
    heard = list[str]()
    (tmp_path / "mine.yaml").write_text(f"{MINE}- {{name: b, preference: Which?}}\n")
    examined = examine_principles(
        str(tmp_path / "mine.yaml"),
        "scripted:echo",
        few_shots="none",
        changes=["method=votes", "votes=1"],
        seed=0,
        out=None,
        say=heard.append,
    )
    assert (list(examined.answers), examined.propositions) == (["b"], [])
    assert heard == ["The propositions are not tested: method votes reads no probability of a yes."]
