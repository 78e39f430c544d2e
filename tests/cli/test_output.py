"""What the commands print where the output is no terminal, for programs, and for the shell."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from rich.table import Table

from constitutional_ai.cli import main
from constitutional_ai.cli.app import terminal
from constitutional_ai.cli.next_steps import next_steps, program
from constitutional_ai.runs.run import Run

ECHO = ["models.helpful=scripted:echo", "models.feedback=scripted:echo", "feedback.method=votes"]


def cai(*words: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, list(words), input=typed)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_piped_is_neither_broken_nor_padded_nor_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 200 + "end"
    terminal().print(long, style="bold red")
    table = Table("", "value", box=None)
    table.add_row("a", "1")
    terminal().print(table)
    assert capsys.readouterr().out == f"{long}\n    value\n a  1\n"


def test_a_run_is_shown_in_a_pipe_one_answer_after_the_other(run: Run) -> None:
    label = json.loads((run.folder / "05-preference-labels" / "records.jsonl").read_text().splitlines()[0])
    shown = cai("show", str(run.folder), label["comparison"]["prompt"]["id"])
    assert shown.exit_code == 0
    assert "─" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) < 400
    assert " \n" not in shown.stdout


def constitutions(printed: dict[str, Any]) -> bool:
    return printed["constitution"] == "default" and printed["principles"]["revision"] == 16


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (["check", "default"], constitutions),
        (["estimate", "demo", *ECHO], lambda printed: printed["stages"][0]["stage"] == "01-responses"),
    ],
    ids=["check", "estimate"],
)
def test_json_is_one_object_and_nothing_else(words: list[str], holds: Any) -> None:
    result = cai(*words, "--json")
    assert result.exit_code == 0
    assert holds(json.loads(result.stdout))


def test_json_of_an_evaluation_and_of_two_runs(run: Run) -> None:
    evaluated = cai("evaluate", "a=scripted:echo", "--part", "answers", "--limit", "1", "--out", "e", "--json")
    assert {metric["model"] for metric in json.loads(evaluated.stdout)["metrics"]} == {"a"}
    compared = json.loads(cai("compare", str(run.folder), str(run.folder), "--json").stdout)
    assert compared["comparisons"][0]["differ"] == []


def test_json_of_a_judge() -> None:
    Path("pairs.jsonl").write_text(json.dumps({"prompt": "Hi?", "chosen": "(A)", "rejected": "(B)"}) + "\n")
    result = cai("judge", "scripted:asks-back", "--data", "pairs.jsonl", "--set", "format=plain", "--json")
    assert json.loads(result.stdout)["ties"]["count"] == 1


def test_a_constitution_may_come_from_standard_input() -> None:
    text = "name: piped\nprinciples:\n  - {name: kind, preference: Which is kinder?}\n"
    assert cai("check", "-", typed=text).stdout.startswith("piped, version ")
    assert cai("check", "-", typed="name: piped\n").stderr.startswith("cai: -:1: principles: is missing")


WRITERS = [
    ["judge", "scripted:echo", "--data", "pairs.jsonl", "--out"],
    ["judge", "scripted:echo", "--data", "pairs.jsonl", "--rows"],
    ["estimate", "demo", *ECHO, "--out"],
    ["compare", "a", "b", "--out"],
    ["score", "a", "b.jsonl", "--out"],
    ["constitution", "import", "a.txt", "--out"],
    ["constitution", "export", "default", "--to", "yaml", "--out"],
    ["constitution", "draft", "a.md", "--out"],
]


@pytest.mark.parametrize("words", WRITERS, ids=lambda words: " ".join(words[:2] + words[-1:]))
def test_no_command_overwrites_a_file(words: list[str]) -> None:
    Path("mine").write_text("mine")
    result = cai(*words, "mine")
    assert (result.exit_code, Path("mine").read_text()) == (1, "mine")
    assert result.stderr == "cai: mine already exists. Delete it, or choose another file with --out.\n"


def test_help_lists_every_command_once_under_a_heading_with_a_whole_sentence() -> None:
    lines = cai("--help").stdout.partition("Options:")[2].splitlines()
    entries = [line.split()[0] for line in lines if line.startswith("  ") and line[2] not in " -"]
    assert sorted(entries) == sorted(main.commands)
    assert "..." not in "".join(lines)


def test_a_run_ends_with_three_commands_that_can_be_typed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/cai"])
    monkeypatch.setenv("PATH", "/nowhere")
    _, *commands = next_steps(run)
    typed = [shlex.split(command, comments=True) for command in commands]
    assert [words[:2] for words in typed] == [[".venv/bin/cai", name] for name in ("show", "chat", "new")]
    assert cai(*typed[0][1:]).exit_code == 0
    monkeypatch.setattr("sys.argv", ["/somewhere/constitutional_ai/__main__.py"])
    assert program() == f"{shlex.quote(sys.executable)} -m constitutional_ai"


def completed(*words: str) -> list[str]:
    shell = ShellComplete(main, {}, "cai", "_CAI_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1]) if item.type == "plain"]


def test_the_shell_completes_recipes_keys_and_runs() -> None:
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/run.json").touch()
    assert completed("run", "d") == ["demo"]
    assert completed("run", "demo", "revisions.r") == ["revisions.rounds="]
    assert "revisions" in completed("recipe", "demo", "rev")
    assert completed("show", "runs/m") == completed("chat", "") == ["runs/mine"]
