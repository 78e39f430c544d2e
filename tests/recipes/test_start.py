"""What ``cai new`` writes, and README's own constitution, run as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from constitutional_ai.cli import main
from constitutional_ai.constitutions.constitution import Principle, load_constitution
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.rl_cai.feedback.label import METHODS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SCRIPTED = ["models.helpful=scripted:echo", "models.feedback=scripted:echo"]


def cai(*words: str) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_new_project_is_checked_estimated_and_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = cai("new", "my project").stdout
    typed = [line.split("#")[0].strip() for line in printed.splitlines() if line.startswith("  ")]
    assert typed[0] == "cd 'my project'"
    monkeypatch.chdir("my project")
    for line in typed[1:-1]:
        cai(*line.split()[1:])
    assert "likely mistakes" not in cai("check", "constitution.yaml").stdout
    cai(*typed[-1].split()[1:], "--until", "02-revisions", *SCRIPTED)
    stage = json.loads(Path("run/02-revisions/stage.json").read_text())
    assert (stage["records"], stage["failures"]) == (8, 0)


def test_its_constitution_shows_every_field_but_those_of_drafts() -> None:
    cai("new", "mine")
    principles = load_constitution("mine/constitution.yaml").principles
    shown = {name for one in principles for name in one.model_fields_set}
    assert shown == set(Principle.model_fields) - {"draft"}
    assert METHODS[load_recipe("mine/recipe.yaml").feedback.method].principles(
        load_constitution("mine/constitution.yaml")
    )


def test_its_prompts_are_of_both_forms_and_both_sides() -> None:
    cai("new", "mine")
    prompts = load_prompts("mine/prompts.jsonl", "red_team")
    assert [len(part) for part in prompts] == [8, 4]
    assert {len(prompt.conversation) for prompt in prompts.train} == {1, 3}


def test_nothing_is_overwritten() -> None:
    cai("new", "mine")
    again = CliRunner().invoke(main, ["new", "mine"])
    assert again.exit_code == 1
    assert again.stderr == "cai: mine/constitution.yaml already exists. Name another folder: cai new FOLDER\n"


@pytest.mark.parametrize("recipe", ["demo", "paper"])
def test_readmes_constitution_runs_readmes_recipes(recipe: str) -> None:
    written = re.search(r"```yaml\n(name: .*?)```", README, re.DOTALL)
    assert written
    Path("my-constitution.yaml").write_text(written[1], encoding="utf-8")
    assert "A whole run needs both" not in cai("check", "my-constitution.yaml").stdout
    few = [f"prompts.{kind}.limit=2" for kind in ("red_team", "helpful", "borderline")]
    changes = ["constitution=my-constitution.yaml", "out=run", *SCRIPTED, *few]
    cai("run", recipe, *changes, "--until", "02-revisions")
