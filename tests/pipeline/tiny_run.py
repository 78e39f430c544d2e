"""Recipes of the whole method that take seconds: every stage real, every number small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from constitutional_ai.pipeline import run_pipeline
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.report.card import write_cards
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Silent


def settings(model: str, out: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of all stages that takes seconds; with ``changes`` of whole sections."""
    own = f"{model}-pm" if model.startswith("hf:") else None
    asked = {
        "out": str(out),
        "models": {"helpful": model, "pretrained": model, "feedback": model, "preference_model": own},
        "prompts": {"red_team": {"limit": 6}, "helpful": {"limit": 4}, "borderline": {"limit": 4}},
        "responses": {"max_tokens": 8, "per_helpful_prompt": 1},
        "revisions": {"rounds": 2, "style": "critiqued", "max_tokens": 8},
        "sl_cai": {"batch_size": 8, "max_length": 1024, "learning_rate": 1e-3},
        "comparisons": {"max_tokens": 8},
        "feedback": {"method": "likelihood"},
        "preference_model": {"batch_size": 4, "max_length": 1024, "helpfulness": {"limit": 4}, "lora_rank": 2},
        "rl_cai": {
            "batch_size": 4,
            "answers": 2,
            "prompts": 4,
            "max_tokens": 6,
            "lora_rank": 2,
            "refusal_gate": "warn",
        },
        "evaluation": {"red_team": 3, "helpful": 2, "borderline": 2, "max_tokens": 8},
    }
    return {**asked, **changes}


def make(asked: dict[str, Any], **how: Any) -> tuple[Run, list[str]]:
    """Run a recipe, and return the run and the lines that it printed."""
    said: list[str] = []
    recipe = Recipe.model_validate(asked)
    return run_pipeline(recipe, progress=Silent(), notify=said.append, after_stage=write_cards, **how), said


def echoing(out: Path, **changes: Any) -> dict[str, Any]:
    """A recipe whose models repeat what they are asked: nothing can be trained, but it takes no time."""
    asked = settings("scripted:echo", out)
    return {**asked, "prompts": {k: {"limit": 2} for k in asked["prompts"]}, **changes}
