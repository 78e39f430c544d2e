"""The commands, one after the other, as a person would type them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main


def cai(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, words)
    return result.exit_code, result.output


def test_from_a_document_to_a_constitution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.md").write_text("# Values\n\nBe kind.\n\nBe fair.\n")
    code, printed = cai("constitution", "import", "a.md", "--out", "b.yaml")
    assert code == 1
    assert "a.md:3: text outside the list of statements" in printed
    assert "cai constitution draft" in printed
    assert cai("constitution", "draft", "a.md", "--out", "d.yaml") == (
        0,
        "d.yaml: drafts for 2 clauses, 2 of them empty\n"
        "Edit it, or decide about each draft in the terminal: cai constitution review d.yaml\n"
        "To see what is left to do, type: cai constitution coverage d.yaml a.md\n",
    )
    assert cai("constitution", "draft", "a.md", "--out", "d.yaml")[1].startswith("cai: d.yaml already exists")
    code, printed = cai("check", "d.yaml")
    assert (code, printed.startswith("cai: d.yaml:")) == (1, True)
    assert "'values-1-l3' is a draft" in printed
    text = Path("d.yaml").read_text().replace("    draft: true", "    preference: Which is kinder?", 1)
    Path("d.yaml").write_text(text)
    code, printed = cai("constitution", "coverage", "d.yaml", "a.md", "--out", "c.csv")
    assert (code, printed) == (0, "a.md: 1 of 2 clauses have a principle\nno principle: line 5: Values ¶2\n")
    assert Path("c.csv").read_text().splitlines()[1] == "Values ¶1,3,2,values-1-l3"


def test_an_export_and_a_test_of_principles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed = cai("constitution", "export", "default", "--to", "llm-swarm", "--out", "a.json")
    assert code == 0
    assert "left behind: 16 principles without a critique, 16 pairs of 'upheld' and 'broken'" in printed
    assert cai("constitution", "import", "a.json", "--out", "a.yaml")[0] == 0
    code, printed = cai("constitution", "test", "general", "--judge", "scripted:coin-flips", "--out", "t")
    assert code == 0
    assert "good-for-everyone" in printed
    assert sorted(path.name for path in Path("t").iterdir()) == [
        "agreement.csv",
        "principles.csv",
        "tested.json",
    ]


def test_a_check_warns_of_what_a_test_of_this_version_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coin flips depend on no order, and their negation reverses nothing."""
    monkeypatch.chdir(tmp_path)
    mine = "name: mine\nprinciples:\n- {name: a, preference: Which?}\n- {name: b, preference: 'Which one?'}\n"
    Path("mine.yaml").write_text(mine)
    assert "tested" not in cai("check", "mine.yaml")[1]
    assert (
        cai("constitution", "test", "mine.yaml", "--judge", "scripted:coin-flips", "--out", "mine.test")[0] == 0
    )
    assert {path.name for path in Path("mine.test").iterdir()} > {"agreement.svg", "agreement.png"}
    assert ">100</text>" in Path("mine.test/agreement.svg").read_text()  # both principles flip the same coins
    printed = cai("check", "mine.yaml")[1]
    assert (
        "tested by scripted:coin-flips with method multiple_choice: 2 of 2 principles have a fault" in printed
    )
    assert "  a: its negation does not reverse it" in printed
    Path("mine.yaml").write_text(mine.replace("Which?", "Who?"))
    assert ": test this version, too\n" in cai("check", "mine.yaml")[1]
    Path("mine.test/tested.json").write_text("[]")
    code, printed = cai("check", "mine.yaml")
    assert (code, "is no result of cai constitution test. Delete it" in printed) == (1, True)
