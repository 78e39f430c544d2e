"""Stand-ins for trainings: the whole pipeline on scripted models, in no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel, scripted
from constitutional_ai.pipeline import PIPELINE
from constitutional_ai.records import Checkpoint
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Trained
from constitutional_ai.stages.job import Job
from tests.pipeline.tiny_run import echoing

NO = "I'm sorry, but I can't help with that. It would be wrong."


def trained(stage: str, *keys: str) -> Callable[[Job], None]:
    """A training that writes the settings that it depends on where the weights would be."""

    def make(job: Job) -> None:
        earlier = [layout.RESPONSES, *job.in_recipe(layout.REVISIONS)]
        inputs = job.outputs(*([layout.SL_CAI_MODEL] if stage == layout.RL_CAI_MODEL else earlier))

        def train(folder: Path) -> Trained:
            (folder / layout.WEIGHTS).mkdir()
            settings = json.dumps(job.config(*keys))
            (folder / layout.WEIGHTS / "config.json").write_text(settings)
            return Trained(Checkpoint("model", "base", f"{settings} {inputs}"), 1)

        job.make_model(stage, train, config=job.config(*keys), inputs=inputs)

    return make


def loaded(name: str, **_: Any) -> ScriptedModel:
    """RL-CAI objects if it was trained with a large weight; all others repeat the prompt."""
    if "07-rl-cai-model" in name:
        weight = json.loads((Path(name.removeprefix("hf:")) / "config.json").read_text())["rl_cai.kl_weight"]
        return ScriptedModel(say=lambda context: NO if weight > 0.5 else "Sure!")
    return scripted("echo")


def untrained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a recipe without ``out`` whose trainings are stand-ins; DPO, so that there is no preference model."""
    monkeypatch.setitem(PIPELINE, layout.SL_CAI_MODEL, trained(layout.SL_CAI_MODEL, "sl_cai"))
    monkeypatch.setitem(PIPELINE, layout.RL_CAI_MODEL, trained(layout.RL_CAI_MODEL, "rl_cai"))
    monkeypatch.setattr(load, "load_model", loaded)
    settings = echoing(folder, revisions={"rounds": 1, "style": "direct", "clean": []})
    settings["models"]["preference_model"] = None
    settings |= {"rl_cai": {"algorithm": "dpo", "kl_weight": 0.1, "batch_size": 4}, "max_failures": 0}
    del settings["out"]
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file
