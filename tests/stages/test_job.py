from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.prompts import KINDS
from constitutional_ai.models.model import Sampling
from constitutional_ai.pipeline import run_pipeline
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Response
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import BudgetSpent
from constitutional_ai.runs.folder import open_run, read_run
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Silent
from constitutional_ai.stages.job import Job


def job(run: Run, **recipe: Any) -> Job:
    return Job(run, Recipe.model_validate(recipe), load_constitution("default"), {}, print)


# -- the cache


@pytest.mark.parametrize("cache", ["run", None, "elsewhere/calls.sqlite"])
def test_calls_are_kept_where_the_recipe_says(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        open_run(tmp_path / "run", {}, Silent()) as run,
        job(run, cache=cache).loaded(f"hf:{tiny}", layout.RESPONSES) as model,
    ):
        asyncio.run(model.generate("Hi", Sampling(max_tokens=2)))
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.sqlite")}
    assert found == {None: set(), "run": {f"run/{layout.CALLS}"}}.get(cache, {cache})


# -- the budget


def small(out: Path, **budget: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "out": str(out),
            "models": {"helpful": "scripted:echo"},
            "prompts": {kind: {"limit": 5} for kind in KINDS},
            "responses": {"per_helpful_prompt": 1},
            "budget": budget,
            "concurrency": 3,
        }
    )


def until_responses(recipe: Recipe) -> Run:
    return run_pipeline(recipe, progress=Silent(), notify=lambda text: None, until="01-responses")


def test_a_run_stops_at_its_budget_and_goes_on_under_a_higher_one(tmp_path: Path) -> None:
    whole = until_responses(small(tmp_path / "whole"))
    made = whole.manifest("01-responses")
    assert made is not None
    tokens = made.prompt_tokens + made.completion_tokens
    for share in (0.3, 0.6):
        with pytest.raises(BudgetSpent, match=r"type the same command with a higher budget\.tokens"):
            until_responses(small(tmp_path / "run", tokens=int(share * tokens)))
        spent = [
            r.completion.prompt_tokens + r.completion.completion_tokens
            for r in read_run(tmp_path / "run").rows("01-responses", Response)
        ]
        assert 0 < sum(spent) <= share * tokens
    run = until_responses(small(tmp_path / "run", tokens=2 * tokens))
    assert run.rows("01-responses", Response) == whole.rows("01-responses", Response)


def test_a_training_ends_after_a_checkpoint_once_the_hours_are_spent(tiny: Path, tmp_path: Path) -> None:
    asked = {"models": {"pretrained": f"hf:{tiny}"}, "sl_cai": {"checkpoint_steps": 4}}
    folder = tmp_path / "run" / "03-sl-cai-model"
    with open_run(tmp_path / "run", {}, Silent()) as run:
        folder.mkdir()
        free = job(run, **asked).training_job(folder, [], "sl_cai").on_step
        for step in range(1, 21):
            free(step, 20)
        with pytest.raises(BudgetSpent, match="03-sl-cai-model"):
            job(run, **asked, budget={"hours": 1e-9}).training_job(folder, [], "sl_cai")
        hours = 2 / 3600
        late = job(run, **asked, budget={"hours": hours}).training_job(folder, [], "sl_cai").on_step
        late(5, 20)
        asyncio.run(asyncio.sleep(2.1))
        for step in (6, 7, 8):  # of a checkpoint at 8, only the step after it is lost
            late(step, 20)
        with pytest.raises(BudgetSpent):
            late(9, 20)
        late(20, 20)
