"""The arms of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.recipes.arms import sweep_arms, values_of


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2", ["1", "2"]),
        ("0..4", ["0", "1", "2", "3", "4"]),
        ("-1..1,5", ["-1", "0", "1", "5"]),
        ("null,empty", ["null", "empty"]),
        ("[a,b],[]", ["[a,b]", "[]"]),
        ("{a: 1,b: 2}", ["{a: 1,b: 2}"]),
        ("'server:m@http://a,http://b',bundled:x", ["'server:m@http://a,http://b'", "bundled:x"]),
        ("1,1", ["1"]),
        ("../a.yaml,./b.yaml", ["../a.yaml", "./b.yaml"]),
        ("", [""]),
    ],
)
def test_values_are_split_at_commas_of_their_own(text: str, values: list[str]) -> None:
    assert values_of("key=", text) == values


def test_every_combination_is_an_arm_with_its_own_recipe(tmp_path: Path) -> None:
    folder, arms = sweep_arms(
        "demo", ["revisions.rounds=1..2", "seed=0,7", "sl_cai.epochs=2", f"out={tmp_path}"]
    )
    assert folder == tmp_path
    assert [arm.name for arm in arms] == [
        "revisions.rounds=1+seed=0",
        "revisions.rounds=1+seed=7",
        "revisions.rounds=2+seed=0",
        "revisions.rounds=2+seed=7",
    ]
    assert [(a.recipe.revisions.rounds, a.recipe.seed, a.recipe.sl_cai.epochs) for a in arms[1:3]] == [
        (1, 7, 2.0),
        (2, 0, 2.0),
    ]
    assert [arm.folder for arm in arms] == [tmp_path / arm.name for arm in arms]
    assert {arm.recipe.cache for arm in arms} == {str(tmp_path / "calls.sqlite")}
    assert arms[1].setting == {"revisions.rounds": "1"}


def test_names_of_folders_are_plain_and_differ(tmp_path: Path) -> None:
    models = "models.feedback=server:m@http://127.0.0.1/v1,'server:m@http://127.0.0.1:v1/'"
    names = [arm.name for arm in sweep_arms("demo", ["feedback.format=plain", models, f"out={tmp_path}"])[1]]
    assert len(set(names)) == 2
    assert all("/" not in name and ":" not in name for name in names)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (["seed=0..2"], "out=FOLDER"),
        (["seed=0..2", "out=a,b"], "out=FOLDER"),
        (["seed=3", "out=x"], "no key has several values"),
        (["seed", "out=x"], "'seed' has no '='"),
        (["seed=0..2000", "out=x"], "no range of at most 1000"),
        (["seed=2..0", "out=x"], "no range"),
        (["seed=0..99", "sl_cai.epochs=1..99", "out=x"], "9900 arms"),
        (["seed=0,1", "revisions.rounds=1,x", "out=x"], "on the command line: revisions.rounds"),
    ],
)
def test_a_mistake_is_refused_before_anything_runs(changes: list[str], error: str) -> None:
    with pytest.raises(InputError, match=error):
        sweep_arms("demo", changes)


def test_the_folder_of_a_run_holds_no_arms(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is a run"):
        sweep_arms("demo", ["seed=0,1", f"out={tmp_path}"])
