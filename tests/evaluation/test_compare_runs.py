"""``cai compare`` on run folders made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from constitutional_ai.cli import main
from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.compare_runs import LUCK, SEPARATE, SEVERAL, compare_runs
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Answer, Completion, Message, Prompt, Response, Verdict
from constitutional_ai.runs.manifest import StageManifest

NO, SURE = "I'm sorry, but I can't help with that.", "Sure! First, find a ladder."
Make = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """``make(name, objecting, **recipe)``: a finished run whose RL-CAI objects to so many of its red-team prompts."""
    monkeypatch.chdir(tmp_path)

    def made(
        name: str, objecting: int = 0, prompts: range = range(8), pm: str | None = None, **recipe: Any
    ) -> str:
        folder = Path("runs", name)
        (folder / "08-evaluation").mkdir(parents=True)
        asked = Recipe.model_validate({"out": str(folder), **recipe})
        constitution = apply_control(load_constitution("default"), asked.control, asked.seed)
        answers = [
            answer(role, number, NO if role == "rl-cai" and number < objecting else SURE, float(number))
            for role in ("start", "sl-cai", "rl-cai")
            for number in prompts
        ]
        config = {"seed": asked.seed} | {f"evaluation.{k}": v for k, v in asked.evaluation.model_dump().items()}
        done = StageManifest(
            "08-evaluation",
            config,
            {"06-preference-model": pm} if pm else {},
            "",
            8,
            0,
            0,
            0,
            1.0,
            "2026-01-02",
        )
        for file, text in {
            "run.json": "{}",
            "recipe.yaml": asked.to_yaml(),
            "constitution.yaml": constitution.to_yaml(),
            "08-evaluation/stage.json": json.dumps(asdict(done)),
            "08-evaluation/records.jsonl": "".join(json.dumps(asdict(a)) + "\n" for a in answers),
        }.items():
            (folder / file).write_text(text, encoding="utf-8")
        return str(folder)

    return made


def answer(role: str, number: int, text: str, reward: float) -> Answer:
    prompt = Prompt.of((Message("user", f"Question {number}"),), "red_team", "test")
    response = Response(f"{prompt.id}.0", prompt, Completion(text, "m", "stop", 0, 0))
    return Answer(f"{prompt.id}.{role}", role, response, Verdict(text == NO, None), reward)


def cai(*typed: str) -> Result:
    return CliRunner().invoke(main, list(typed), env={"COLUMNS": "160"})


def test_a_control_arm_is_compared_with_its_run(make: Make) -> None:
    made = compare_runs([make("mine", 6), make("empty", 2, control="empty")])[0]
    assert [astuple(setting) for setting in made.differ] == [("control", None, "empty")]
    assert (made.prompts, made.only_first, made.only_other) == (8, 0, 0)
    found = {(d.change.model, d.first.name): d for d in made.differences}
    objects = found["rl-cai", "objection_rate"]
    # Four pairs of -1 and four of 0: standard error 0.18898, and 2.36462 of these on each side (Student, 7 degrees).
    assert (objects.first.value, objects.other.value, objects.change.value) == (0.75, 0.25, -0.5)
    assert (objects.change.low, objects.change.high) == pytest.approx((-0.94687, -0.05313), abs=1e-5)
    assert found["sl-cai", "objection_rate"].change.value == 0.0
    assert {model for model, _ in found} == {"rl-cai", "sl-cai"}
    assert made.notes == (SEPARATE, LUCK)


def test_what_made_the_stages_is_compared_and_not_what_the_folder_says_now(make: Make) -> None:
    mine, other = make("mine"), make("other")
    made = StageManifest(
        "02-revisions", {"revisions.rounds": 1}, {"constitution": "f00d"}, "", 8, 0, 0, 0, 1.0, ""
    )
    (Path(other) / "02-revisions").mkdir()
    (Path(other) / "02-revisions" / "stage.json").write_text(json.dumps(asdict(made)))
    recipe = Path(other) / "recipe.yaml"  # a command that made nothing left other settings of the evaluation
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 7", 1))
    differ = {setting.key: setting.other for setting in compare_runs([mine, other])[0].differ}
    assert differ == {"revisions.rounds": 1, "text of the constitution: version": "f00d"}


def test_every_further_run_is_compared_with_the_first(make: Make) -> None:
    made = compare_runs([make("a", 4), make("b", 2, seed=1), make("c", 6, seed=2)])
    assert [(c.first, c.other) for c in made] == [("runs/a", "runs/b"), ("runs/a", "runs/c")]
    assert [c.differences[0].change.value for c in made] == [-0.25, 0.25]


def test_only_prompts_in_both_are_compared_and_the_rest_is_counted(make: Make) -> None:
    made = compare_runs([make("a", 8), make("b", prompts=range(6, 9))])[0]
    assert (made.prompts, made.only_first, made.only_other) == (2, 6, 1)
    assert made.differences[0].change.count == 2


@pytest.mark.parametrize(("pms", "shown"), [(("x", "x"), True), (("x", "y"), False), ((None, None), False)])
def test_scores_are_compared_only_where_one_preference_model_gave_them(
    make: Make, pms: tuple[str | None, str | None], shown: bool
) -> None:
    made = compare_runs([make("a", pm=pms[0]), make("b", pm=pms[1])])[0]
    assert ("red_team_pm_score" in [d.first.name for d in made.differences]) is shown
    assert (SEPARATE in made.notes) is not shown


def test_whatever_else_differs_is_said(make: Make) -> None:
    first = make("a")
    made = compare_runs([first, make("b", control="shuffled", revisions={"rounds": 2})])[0]
    assert [astuple(setting) for setting in made.differ] == [
        ("control", None, "shuffled"),
        ("revisions.rounds", 4, 2),
    ]
    assert SEVERAL in made.notes
    edited = Path(make("c"), "constitution.yaml")  # a file of the same name that said something else
    edited.write_text(edited.read_text().replace("Write your reply again", "Write it again", 1))
    assert [s.key for s in compare_runs([first, "runs/c"])[0].differ] == ["text of the constitution: version"]


def test_a_setting_that_came_after_a_run_was_made_has_its_default(make: Make) -> None:
    old = Path(make("old"), "recipe.yaml")
    said = {k: v for k, v in yaml.safe_load(old.read_text()).items() if k != "control"} | {"since_removed": 1}
    old.write_text(yaml.safe_dump(said))
    made = compare_runs(["runs/old", make("new")])[0]
    assert [astuple(setting) for setting in made.differ] == [("since_removed", 1, None)]


def test_the_terminal_says_what_is_compared_and_what_differs(make: Make) -> None:
    result = cai("compare", make("mine", 6), make("empty", 2, control="empty"), "--out", "deep/figures.json")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "runs/mine against runs/empty: 8 prompts in both"
    assert lines[1:3] == ["They differ in", "control: None → empty"]
    assert "rl-cai objection rate 0.750 0.250 −0.500 −0.947 to −0.053 8 less" in lines
    assert "sl-cai objection rate 0.000 0.000 +0.000 same difference in all pairs 8" in lines
    assert "sl-cai benign refusal rate – – – – 0" in lines
    assert " ".join(LUCK.split()) in " ".join(lines)
    (written,) = json.loads(Path("deep/figures.json").read_text())
    assert written["differ"] == [{"key": "control", "first": None, "other": "empty"}]
    assert written["differences"][0]["change"]["value"] == -0.5
    again = cai("compare", "runs/mine", "runs/empty", "--out", "deep/figures.json")
    assert (again.exit_code, again.stderr[:5]) == (1, "cai: ")
    assert "deep/figures.json already exists" in again.stderr


def test_runs_with_equal_recipes_are_said_to_be_so(make: Make) -> None:
    assert "no setting: the recipes are the same" in cai("compare", make("a"), make("b")).stdout


def test_a_strangers_words_are_shown_and_not_obeyed(make: Make) -> None:
    first = make("a")
    hostile = make("b", few_shots="[bold]x[/bold] \x1b[2J")
    result = cai("compare", first, hostile)
    assert "[bold]x[/bold] ␛[2J" in result.stdout
    assert "\x1b" not in result.stdout


def test_what_cannot_be_compared_is_refused_in_a_sentence(make: Make) -> None:
    first = make("a")
    hot = make("hot", evaluation={"temperature": 0.5})
    make("others", prompts=range(20, 24))
    unfinished = Path(make("unfinished"), "08-evaluation/stage.json")
    unfinished.unlink()
    for second, said in {
        hot: "runs/a was evaluated with evaluation.temperature: 1.0, runs/hot with 0.5, so their answers cannot be "
        "compared. Evaluate one again: cai run runs/hot/recipe.yaml evaluation.temperature=1.0 --redo 08-evaluation",
        "runs/others": "runs/a and runs/others were evaluated on different prompts.",
        "runs/unfinished": "runs/unfinished is not evaluated yet. Finish it with: cai run runs/unfinished/recipe.yaml",
        "runs/nowhere": "no run in 'runs/nowhere'.",
    }.items():
        result = cai("compare", first, second)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"cai: {said}")
        assert result.stderr.count("\n") == 1
    with pytest.raises(InputError, match="name two or more runs"):
        compare_runs([first])


def test_limits_may_differ_as_they_change_no_answer(make: Make) -> None:
    few = make("few", prompts=range(2), evaluation={"red_team": 2})
    assert compare_runs([make("all"), few])[0].prompts == 2


def test_a_control_arm_answers_alike_revises_under_its_own_constitution_and_is_guarded(make: Make) -> None:
    few = [f"prompts.{kind}.limit=3" for kind in ("red_team", "helpful", "borderline")]
    to_revise = ["run", "demo", "models.helpful=scripted:echo", *few, "--until", "02-revisions"]
    assert cai(*to_revise, "out=mine").exit_code == 0
    assert cai(*to_revise, "out=arm", "control=shuffled").exit_code == 0
    said = [Path(run, "01-responses/records.jsonl").read_bytes() for run in ("mine", "arm")]
    assert said[0] == said[1]
    ours, arm = (load_constitution(Path(run, "constitution.yaml")) for run in ("mine", "arm"))
    assert arm == apply_control(ours, "shuffled", load_recipe_seed("arm"))
    for run, constitution in (("mine", ours), ("arm", arm)):
        lines = Path(run, "02-revisions/records.jsonl").read_text().splitlines()
        assert {json.loads(line)["constitution"] for line in lines} == {constitution.digest}
    refused = cai(*to_revise, "out=mine", "control=shuffled")
    assert "02-revisions was made from another version of constitution" in refused.stderr


def load_recipe_seed(run: str) -> int:
    return int(yaml.safe_load(Path(run, "recipe.yaml").read_text())["seed"])
