"""A tiny model is really tried: each stage, and two steps of each training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.errors import InputError
from constitutional_ai.estimate.count_work import Estimate, count_work
from constitutional_ai.estimate.estimate_cost import priced
from constitutional_ai.estimate.measure_here import measure
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.runs import layout
from tests.pipeline.tiny_run import settings

SERVER = "server:m@http://127.0.0.1:9/v1"


def measured(asked: dict[str, object], lines: list[str]) -> dict[str, Estimate]:
    recipe = Recipe.model_validate(asked)
    counted = [one for one in count_work(recipe) if one.records]
    result = priced(measure(recipe, counted, load_constitution(recipe.constitution), lines.append), (1.0, 1.0))
    return {one.stage: one for one in result}


def test_every_stage_is_measured_with_the_recipes_own_models(
    make_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    lines: list[str] = []
    model = f"hf:{make_tiny()}"
    asked = settings(model, tmp_path)
    asked["models"]["preference_model"] = None
    stages = measured(asked, lines)
    assert list(stages) == [stage for stage in layout.STAGES if stage != layout.PROMPTS]
    for one in stages.values():
        assert one.seconds and one.memory and one.disk and one.cost == 0, one
    answers = stages[layout.RESPONSES]
    assert answers.read and answers.written and answers.written <= 8 * answers.records
    assert all(f"measuring {stage} …" in lines for stage in stages if stage != layout.EVALUATION)
    assert list(tmp_path.iterdir()) == []


def test_what_a_server_would_do_is_not_asked_for(make_tiny: Callable[..., Path], tmp_path: Path) -> None:
    asked = settings(f"hf:{make_tiny()}", tmp_path)
    asked["models"] |= {"preference_model": None, "feedback": SERVER}
    asked["feedback"] = {"method": "votes"}
    asked["rl_cai"] |= {"algorithm": "dpo", "kl_weight": 0.1, "refusal_gate": "warn", "max_length": 1024}
    stages = measured(asked, [])
    label = stages[layout.PREFERENCE_LABELS]
    assert label.seconds is None and label.read and "server is not measured" in label.note
    assert stages[layout.RL_CAI_MODEL].seconds and stages[layout.SL_CAI_MODEL].seconds


def test_trainings_without_weights_are_refused_at_once() -> None:
    recipe = Recipe.model_validate({"models": {"pretrained": "scripted:echo"}})
    with pytest.raises(InputError, match=r"scripted:echo has no weights .* --rates in place of --measure"):
        measure(recipe, [], load_constitution("default"), print)
