"""Test what is said of a recipe's models before anything is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.prompts import KINDS, Prompts, load_prompts
from constitutional_ai.errors import ModelError
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.runs import layout
from constitutional_ai.stages.check_models import apart, check_models, divided, load_all_prompts

STAGES = set(layout.STAGES)


def recipe(**models: Any) -> Recipe:
    return Recipe.model_validate({"models": models})


def test_a_preference_model_may_be_the_base_of_another(tiny: Path, tiny_pm: Path) -> None:
    told: list[str] = []
    check_models(recipe(pretrained=f"hf:{tiny}", preference_model=f"hf:{tiny_pm}"), STAGES, told.append)
    assert told == []


def test_a_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for field in ("helpful", "pretrained", "preference_model", "feedback"):
        with pytest.raises(ModelError, match=f"cannot load 'hf:{tmp_path}'"):
            check_models(recipe(**{field: f"hf:{tmp_path}"}), STAGES, print)


def test_complete_stages_need_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    check_models(
        recipe(helpful=f"hf:{tmp_path}"),
        STAGES - {layout.RESPONSES, layout.REVISIONS, layout.EVALUATION},
        print,
    )


def test_what_is_trained_on_and_held_out_is_told() -> None:
    prompts = {kind: load_prompts("built-in", kind) for kind in KINDS}
    few = prompts | {"red_team": Prompts(prompts["red_team"].train[:5], prompts["red_team"].held_out[:3])}
    limits = {"prompts": {"helpful": {"limit": 16}, "borderline": {"limit": 0}}}
    assert list(divided(Recipe.model_validate(limits), few)) == [
        "prompts.red_team: 8 prompts: 5 to train on, 3 held out",
        "prompts.helpful: 192 prompts: 132 to train on (16 of them used), 60 held out",
    ]
    none = {"red_team": Prompts(prompts["red_team"].train[:2], [])}
    (line,) = divided(Recipe(), none)
    assert line.endswith('2 to train on, 0 held out: mark rows to evaluate on with "split": "held_out"')


def test_a_file_of_its_own_is_measured_on_and_none_of_it_trained_on(tmp_path: Path) -> None:
    built_in = load_all_prompts(Recipe())
    trained = built_in["helpful"].train[0].conversation[-1].content
    file = tmp_path / "test.jsonl"
    file.write_text(
        '{"prompt": "How do I rob a bank?"}\n'
        f'{{"prompt": "{trained}", "kind": "helpful"}}\n{{"prompt": "Kill time?", "kind": "borderline"}}\n'
    )
    own = Recipe.model_validate({"evaluation": {"prompts": str(file)}})
    prompts = apart(load_all_prompts(own), print)
    measured = {kind: [p.conversation[-1].content for p in prompts[kind].held_out] for kind in KINDS}
    assert measured == {
        "red_team": ["How do I rob a bank?"],
        "helpful": [trained],
        "borderline": ["Kill time?"],
    }
    assert prompts["red_team"].train == built_in["red_team"].train
    assert prompts["helpful"].train == built_in["helpful"].train[1:]
