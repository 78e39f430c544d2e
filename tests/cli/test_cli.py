"""What a user types, and what a user reads: one sentence for a mistake, and never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from constitutional_ai import pipeline
from constitutional_ai.cli import main
from constitutional_ai.cli.app import EXTRAS
from constitutional_ai.serve import reward_server, score_file


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with some bad files."""
    monkeypatch.chdir(tmp_path)
    Path("torn.jsonl").write_text('{"prompt": "How do I bake?"}\n{"prompt": "How do I br')
    Path("empty.jsonl").touch()
    Path("blank.jsonl").write_text('{"prompt": ""}\n')
    Path("latin.jsonl").write_bytes(b'{"prompt": "caf\xe9"}\n')
    Path("typo.yaml").write_text("name: mine\nprinciples:\n  - name: kind\n    critque: Was it kind?\n")
    Path("no.yaml").write_text("name: [mine\n")
    Path("recipe.yaml").write_text("revisions:\n  ronds: 2\n")
    Path("a-file").touch()
    Path("others").mkdir()
    Path("others", "thesis.tex").touch()
    return tmp_path


def cai(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


MISTAKES = [  # (what is typed, what is read)
    ("run nowhere.yaml", "no recipe 'nowhere.yaml': neither a file nor built in."),
    ("run dmeo", "Did you mean 'demo'?"),
    ("run others", "no recipe 'others'"),
    ("run recipe.yaml", "recipe.yaml:2: revisions.ronds: unknown key 'ronds'. Did you mean 'rounds'?"),
    ("run no.yaml", "no.yaml:2: not YAML: "),
    ("run torn.jsonl", "torn.jsonl"),
    ("run demo prompts.red_team.file=nowhere.jsonl", "no file 'nowhere.jsonl'"),
    ("run demo prompts.red_team.file=others", "'others' is a folder"),
    ("run demo prompts.red_team.file=torn.jsonl", "torn.jsonl:2: not JSON"),
    ("run demo prompts.helpful.file=empty.jsonl", "empty.jsonl holds no prompts"),
    (
        "run demo prompts.helpful.file=blank.jsonl",
        "blank.jsonl:1: prompt: is empty",
    ),
    ("run demo prompts.borderline.file=latin.jsonl", "latin.jsonl is not UTF-8 text"),
    ("run demo preference_model.helpfulness.file=torn.jsonl", "torn.jsonl:1: "),
    ("run demo preference_model.helpfulness.file=nowhere.jsonl", "'nowhere.jsonl'"),
    (
        "run demo constitution=typo.yaml",
        "typo.yaml:4: principles.0.critque: unknown key 'critque'. Did you mean",
    ),
    ("run demo constitution=no.yaml", "no.yaml:2: not YAML: "),
    ("run demo constitution=defualt", "Did you mean 'default'?"),
    ("run demo models.helpful=gpt-5", "on the command line: models.helpful: unknown model 'gpt-5'"),
    ("run demo models.helpful=hf:./nowhere", "no folder './nowhere'. Write hf:"),
    ("run demo models.helpful=hf:others", "'others' holds no config.json"),
    ("run demo rounds=2", "on the command line: rounds: unknown key 'rounds'."),
    ("run demo rounds", "'rounds' has no '='."),
    (
        "run demo revisions.rounds=none",
        "on the command line: revisions.rounds: must be a whole number",
    ),
    ("run demo out=a-file", "a-file is a file, not a folder"),
    ("run demo out=others", "others holds files that are not part of a run"),
    ("run demo --until 03", "'03' is not one of '00-prompts'"),
    ("run demo --redo everything", "'everything' is not one of"),
    ("run", "Missing argument 'RECIPE'"),
    ("rum demo", "No such command 'rum'. Did you mean 'run'?"),
    ("check nowhere.yaml", "no constitution 'nowhere.yaml'"),
    ("check typo.yaml", "typo.yaml:4: "),
    ("show others 3f2a", "no run in 'others'."),
    ("report others", "no run in 'others'."),
    ("report a-file", "no run in 'a-file'."),
    ("chat others", "no run in 'others'."),
]


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_a_failure(typed: str, said: str) -> None:
    if "out=" not in typed and typed.startswith("run demo"):
        typed += " out=mine"
    result = cai(*typed.split())
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit), result.exception
    assert said in result.stderr
    assert "Traceback" not in result.output
    sentence = [line for line in result.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(sentence) == 1


def test_a_mistake_in_what_is_read_first_makes_no_folder() -> None:
    cai("run", "demo", "out=mine", "prompts.red_team.file=torn.jsonl")
    cai("run", "demo", "out=mine", "constitution=typo.yaml")
    assert not Path("mine").exists()


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "run_pipeline", bug)
    assert isinstance(cai("run", "demo", "out=mine").exception, ZeroDivisionError)


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run_pipeline", interrupted)
    result = cai("run", "demo", "out=mine")
    assert result.exit_code == 130
    assert (
        result.stderr.strip()
        == "cai: interrupted. What was finished is kept: type the same command to continue."
    )


def test_an_error_leaves_the_process_with_a_failure() -> None:
    command = [sys.executable, "-m", "constitutional_ai", "run", "nowhere.yaml"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("cai: no recipe 'nowhere.yaml'")
    assert result.stdout == ""


def test_checking_ours_says_what_it_holds() -> None:
    result = cai("check", "default")
    assert result.exit_code == 0
    assert "16 principles for revisions (the paper has 16)" in result.stdout
    assert "A whole run needs both." not in result.stdout


def test_checking_one_side_says_what_is_missing() -> None:
    Path("half.yaml").write_text("name: half\nprinciples:\n  - {name: p, preference: Which is kinder.}\n")
    assert "A whole run needs both." in cai("check", "half.yaml").stdout


ECHO = ["models.helpful=scripted:echo", "models.feedback=scripted:echo"]
FEW = [f"prompts.{kind}.limit=3" for kind in ("red_team", "helpful", "borderline")]


def test_a_run_until_a_stage_says_where_it_is_and_running_again_is_quiet() -> None:
    for _ in range(2):
        result = cai("run", "demo", "out=mine", "--until", "02-revisions", *ECHO, *FEW)
        assert result.exit_code == 0, result.output
        assert "02-revisions is complete in mine." in result.stdout
    records = json.loads(Path("mine/02-revisions/stage.json").read_text())["records"]
    assert records == 3 + 6  # of red-team prompts, and of harmless ones
    assert yaml.safe_load(Path("mine/recipe.yaml").read_text())["models"]["helpful"] == "scripted:echo"


def test_a_changed_recipe_is_refused_until_redo_is_said() -> None:
    assert cai("run", "demo", "out=mine", "--until", "02-revisions", *ECHO, *FEW).exit_code == 0
    changed = ["run", "demo", "out=mine", "--until", "02-revisions", *ECHO, *FEW, "revisions.rounds=2"]
    refused = cai(*changed)
    assert refused.exit_code == 1
    assert refused.stderr.strip() == (
        "cai: 02-revisions was made with revisions.rounds: 1, the recipe now says 2. "
        "Pass --redo 02-revisions, or use a new run (out=...)."
    )
    assert cai(*changed, "--redo", "02-revisions").exit_code == 0
    assert cai(*changed).exit_code == 0


def test_every_recipe_that_the_help_names_is_there() -> None:
    from constitutional_ai.recipes.recipe_file import load_recipe

    said = re.sub(r"-\n\s+", "-", cai("run", "--help").stdout)
    for name in re.split(r",\s+", said.partition("by name (")[2].partition(")")[0]):
        assert load_recipe(name)


@pytest.mark.parametrize("command", ["run", "check", "show", "report", "chat"])
def test_every_command_has_help(command: str) -> None:
    for flag in ("--help", "-h"):
        result = cai(command, flag)
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 3


def test_every_package_of_an_extra_is_named_with_what_brings_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    brought = {
        (re.split(r"[<>=\[]", package)[0].replace("-", "_"), extra)
        for extra, packages in project["optional-dependencies"].items()
        if extra not in ("dev", "docs")
        for package in packages
    }
    assert {(name, EXTRAS.get(name)) for name, _ in brought} <= brought


@pytest.mark.parametrize(
    "words",
    [
        ["estimate", "demo"],
        ["run", "demo"],
        ["judge", "scripted:echo", "--data", "x"],
        ["chat", "x"],
        ["serve", "x"],
        ["doctor", "scripted:echo"],
        ["export", "x", "--to", "parquet", "--out", "y"],
        ["figure", "2", "x"],
    ],
    ids=lambda words: words[0],
)
def test_a_package_that_is_missing_is_one_sentence(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'transformers.models'", name="transformers.models")

    monkeypatch.setattr(main.commands[words[0]], "callback", missing)
    result = cai(*words)
    assert result.exit_code == 1
    assert result.stderr == (
        "cai: the package 'transformers' is not installed. Type: pip install 'constitutional-ai[local]', or in a clone "
        "of the source: pip install --editable '.[local]'\n"
    )


def test_a_server_that_is_interrupted_has_ended_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reward_server, "serve", interrupted)
    monkeypatch.setattr(score_file, "preference_model_folder", Path)
    result = cai("serve", "others")
    assert (result.exit_code, result.output) == (0, "")
